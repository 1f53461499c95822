"""Linear layers with weights repacked once for the CPU's matrix kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ift_kernels.backend import INVARIANT
from ift_kernels.bf16_linear import PackedWeight, bf16_linear, pack_weight
from ift_kernels.fixed_linear import fixed_linear
from ift_kernels.quantized_linear import QuantizedWeight, quantized_linear, stack_weights
from ift_serve.modeling.decoder.device_weights import DeviceWeight
from ift_serve.modeling.decoder.quantization import QuantizedWeights

_SPLIT_WIDTH = 1024
"""oneDNN splits the sum of a single row from about this input width on, which rounds differently."""


def has_bf16_products() -> bool:
    """Whether this processor multiplies bf16, so that such a model computes in its own dtype."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build and machine have packed products for ``dtype``."""
    return (
        dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (dtype == torch.float32 or has_bf16_products())
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


class Bf16Linear(nn.Module):
    """``x W^T + b`` in float32 over a weight that is kept in bf16 and widened as it is read: half the bytes.

    For processors without bf16 products, where the sums are float32 anyway. Only for weights that bf16 holds exactly,
    as a model stored in bf16 has them, so nothing is rounded that float32 would keep.
    """

    def __init__(self, weight: PackedWeight, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._packed = weight
        self._bias = None if bias is None else bias.detach().float().contiguous()

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: ``[..., in_features]`` float32 -> ``[..., out_features]``."""
        rows = inputs.reshape(-1, self.in_features).contiguous()
        return bf16_linear(rows, self._packed, self._bias).view(*inputs.shape[:-1], self.out_features)

    def dense(self) -> tuple[Tensor, Tensor | None]:
        """The weight ``[out_features, in_features]``, unpacked into new memory, and the bias."""
        return self._packed.dense(), self._bias

    def extra_repr(self) -> str:
        """Shapes, as ``nn.Linear`` shows them."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self._bias is not None}"


class QuantizedLinear(nn.Module):
    """``x W^T + b`` over a weight of 8 or 4 bits, inputs rounded a row at a time (``ift_kernels.quantized_linear``)."""

    def __init__(self, weight: QuantizedWeight, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._weight = weight
        self._bias = None if bias is None else bias.detach().float().contiguous()

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: ``[..., in_features]`` float32 or bfloat16 -> ``[..., out_features]``."""
        rows = inputs.reshape(-1, self.in_features).contiguous()
        return quantized_linear(rows, self._weight, self._bias).view(*inputs.shape[:-1], self.out_features)

    def dense(self) -> tuple[Tensor, Tensor | None]:
        """The weight ``[out_features, in_features]`` that the codes stand for, in new memory, and the bias."""
        return self._weight.dense(), self._bias

    def extra_repr(self) -> str:
        """Shapes, as ``nn.Linear`` shows them, and bits."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self._weight.bits}"


class DeviceQuantizedLinear(nn.Module):
    """``x W^T + b`` over a weight of 8 or 4 bits on a GPU, by torchao."""

    def __init__(self, weight: DeviceWeight, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._weight = weight
        self._bias = None if bias is None else bias.detach().contiguous()

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: ``[..., in_features]`` -> ``[..., out_features]``."""
        return linear(inputs, self._weight.tensor, self._bias)

    def dense(self) -> tuple[Tensor, Tensor | None]:
        """The weight ``[out_features, in_features]`` that the codes stand for, in new memory, and the bias."""
        return self._weight.dense(), self._bias

    def extra_repr(self) -> str:
        """Shapes, as ``nn.Linear`` shows them, and bits."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self._weight.bits}"


class JoinedLinear(nn.Module):
    """Linear layers of the same input whose outputs stand side by side, since their weights are of different kinds."""

    def __init__(self, parts: Sequence[Linear]) -> None:
        super().__init__()
        self.in_features: int = parts[0].in_features
        self.out_features: int = sum(int(part.out_features) for part in parts)
        self._parts = tuple(parts)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: ``[..., in_features]`` -> ``[..., out_features]``."""
        return torch.cat([part(inputs) for part in self._parts], -1)

    def dense(self) -> tuple[Tensor, Tensor | None]:
        """The weight ``[out_features, in_features]`` in new memory, and the bias."""
        weights, biases = zip(*(part.dense() for part in self._parts), strict=True)
        if all(bias is None for bias in biases):
            return torch.cat(weights), None
        filled = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
        return torch.cat(weights), torch.cat(filled)


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


class FixedLinear(PlainLinear):
    """``x W^T + b`` with the same bits of a row in any batch, by a kernel of its own (``ift_kernels.fixed_linear``)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: ``[..., in_features]`` -> ``[..., out_features]``."""
        rows = inputs.reshape(-1, self.in_features)
        return fixed_linear(rows, self._weight, self._bias, INVARIANT).view(*inputs.shape[:-1], self.out_features)


Linear = PackedLinear | Bf16Linear | QuantizedLinear | DeviceQuantizedLinear | JoinedLinear | PlainLinear | FixedLinear


def make_linear(weight: Tensor, bias: Tensor | None, backend: str = "auto") -> Linear:
    """The fastest linear layer for a weight, where it is; with an invariant backend the one that has no other."""
    if backend == INVARIANT:
        return FixedLinear(weight, bias)
    if weight.device.type != "cpu" or not can_pack(weight.dtype):
        return PlainLinear(weight, bias)
    packed = _as_bf16([weight])
    return PackedLinear(weight, bias) if packed is None else Bf16Linear(packed, bias)


def _as_bf16(weights: Sequence[Tensor]) -> PackedWeight | None:
    """One below the other, where that is the fastest form of them."""
    if any(w.dtype != torch.float32 or w.device.type != "cpu" for w in weights) or has_bf16_products():
        return None
    return pack_weight(*weights) if can_pack(torch.float32) else None


def _joined(weights: Sequence[Tensor], bias: Tensor | None, backend: str) -> Linear:
    if len(weights) == 1 or backend == INVARIANT or weights[0].device.type != "cpu" or not can_pack(weights[0].dtype):
        return make_linear(torch.cat(list(weights)), bias, backend)
    # Packed from where they are: one below the other they would be copied once more.
    packed = _as_bf16(weights)
    return PackedLinear(torch.cat(list(weights)), bias) if packed is None else Bf16Linear(packed, bias)


def join_linears(linears: Sequence[Any], quantized: QuantizedWeights, backend: str = "auto") -> Linear:
    """``nn.Linear`` layers of the same input as one; in one weight where they are of one kind."""
    weights = [quantized.get(linear) for linear in linears]
    if not any(weights):
        return _joined([linear.weight for linear in linears], _joined_bias(linears), backend)
    packed = [weight for weight in weights if isinstance(weight, QuantizedWeight)]
    if len(packed) == len(linears) and (stacked := stack_weights(packed)) is not None:
        return QuantizedLinear(stacked, _joined_bias(linears))
    parts = [_of_kind(linear, weight) for linear, weight in zip(linears, weights, strict=True)]
    return parts[0] if len(parts) == 1 else JoinedLinear(parts)


def _of_kind(linear: Any, weight: QuantizedWeight | DeviceWeight | None) -> Linear:
    if isinstance(weight, DeviceWeight):
        return DeviceQuantizedLinear(weight, linear.bias)
    return make_linear(linear.weight, linear.bias) if weight is None else QuantizedLinear(weight, linear.bias)


def _joined_bias(linears: Sequence[Any]) -> Tensor | None:
    if all(linear.bias is None for linear in linears):
        return None
    return torch.cat(
        [linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias for linear in linears]
    )


def pack_linears(model: nn.Module, quantized: QuantizedWeights | None = None) -> int:
    """Replace every ``nn.Linear`` below ``model``; returns how many. A tied weight keeps its plain copy."""
    count = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is not nn.Linear:
                continue
            rounded = None if quantized is None else quantized.get(child)
            if rounded is not None or (can_pack(child.weight.dtype) and child.weight.device.type == "cpu"):
                setattr(module, name, _of_kind(child, rounded))
                count += 1
    return count
