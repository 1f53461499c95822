"""Definition of the rounding of a weight."""

from __future__ import annotations

import torch
from torch import Tensor

from ift_kernels.quantized_linear import QuantizedWeight, pack_codes
from ift_kernels.quantized_linear.types import GROUP


def quantize_weight_reference(weight: Tensor, bits: int) -> QuantizedWeight | None:
    """See :func:`ift_kernels.quantize_weight.quantize_weight`. weight: of whole panels and groups."""
    outputs, inputs = weight.shape
    groups = weight.float().view(outputs, -1, GROUP)
    low, high = groups.aminmax(dim=-1)
    if not bool((torch.maximum(low.abs(), high.abs()) <= torch.finfo(torch.float16).max).all()):
        return None
    if bits == 8:
        scales, minimums = _half(torch.maximum(low.abs(), high.abs()) / 127), None
        steps = _steps(groups, scales, -127, 127).to(torch.int8)
    else:
        scales, minimums = _half((high - low) / 15), _half(low)
        steps = _steps(groups - minimums[..., None], scales, 0, 15).to(torch.uint8)
    return pack_codes(steps.view(outputs, inputs), scales, minimums, bits)


def _half(values: Tensor) -> Tensor:
    """Rounded to what is kept, so that codes are of the kept scale."""
    return values.to(torch.float16).to(torch.float32)


def _steps(groups: Tensor, scales: Tensor, low: int, high: int) -> Tensor:
    inverse = torch.where(scales == 0, 0.0, 1 / scales)[..., None]
    return (groups * inverse).round_().clamp_(low, high)
