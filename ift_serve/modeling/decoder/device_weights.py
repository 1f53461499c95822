"""Weights of 8 or 4 bits on a GPU, in the layouts and by the products of torchao."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_GROUP = 32
"""Inputs that have a scale in common, of 4 bits: as on the CPU."""
_UNITS = 1024


class DeviceWeight:
    """One weight ``[N, K]`` of fewer bits."""

    def __init__(self, tensor: Tensor, bits: int) -> None:
        """tensor: a tensor of torchao's, whose product is ``torch.nn.functional.linear``."""
        self.tensor = tensor
        self.bits = bits

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        outputs, inputs = self.tensor.shape
        return outputs, inputs

    @torch.inference_mode()
    def dense(self) -> Tensor:
        """What it stands for: products with unit vectors, which every layout has, each of one term."""
        outputs, inputs = self.shape
        dtype, device = self.tensor.dtype, self.tensor.device
        found = torch.empty((outputs, inputs), dtype=dtype, device=device)
        for first in range(0, inputs, _UNITS):
            part = slice(first, min(first + _UNITS, inputs))
            rows = torch.zeros((part.stop - first, inputs), dtype=dtype, device=device)
            rows[:, part].fill_diagonal_(1)
            found[:, part] = linear(rows, self.tensor).T
        return found


def has_torchao() -> bool:
    """Whether the library is there; nothing is imported."""
    return importlib.util.find_spec("torchao") is not None


@torch.inference_mode()
def device_weight(module: nn.Linear, bits: int) -> DeviceWeight | None:
    """A layer's weight in fewer bits, where it is; None where its shape fits no group.

    8 bits: symmetric, a scale an output. 4 bits: 16 steps from the smallest to the largest of 32 inputs, in the tiles
    that torch's own product on GPUs takes (``aten::_weight_int4pack_mm``), in bfloat16 alone. On the CPU, which has no
    such tiles, 4 bits lie in bytes: nothing is served so, and everything around the product can be tested.
    """
    from torchao.quantization import quantize_

    if bits == 4 and module.in_features % _GROUP:
        return None
    holder = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
    holder.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=False)
    quantize_(holder, _config(bits, module.weight.device.type))
    return DeviceWeight(holder.weight.detach(), bits)


def _config(bits: int, device: str) -> Any:
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup
    from torchao.quantization.quant_primitives import MappingType

    if bits == 8:
        return Int8WeightOnlyConfig(set_inductor_config=False)
    if device == "cpu":
        return IntxWeightOnlyConfig(
            torch.int4,  # type: ignore[attr-defined]
            PerGroup(_GROUP),
            MappingType.ASYMMETRIC,
        )
    return Int4WeightOnlyConfig(group_size=_GROUP, int4_packing_format="tile_packed_to_4d", set_inductor_config=False)
