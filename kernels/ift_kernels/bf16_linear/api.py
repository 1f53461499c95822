"""``x W^T + b`` in float32 with a weight that is read as bf16: half the bytes of float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from ift_kernels.backend import uses_cpu
from ift_kernels.bf16_linear.types import PANEL, PackedWeight


def pack_weight(weight: Tensor) -> PackedWeight | None:
    """A weight ``[N, K]`` packed; None where bf16 does not hold every value of it, or N or K are no multiples of 16."""
    outputs, inputs = weight.shape
    if outputs % PANEL or inputs % PANEL:
        return None
    narrow = weight.detach().to(torch.bfloat16)
    if not torch.equal(narrow.to(weight.dtype), weight):
        return None
    panels = narrow.view(outputs // PANEL, PANEL, inputs // 2, 2).permute(0, 2, 1, 3).contiguous()
    return PackedWeight(panels)


@cache
def _cpu() -> Callable[[Tensor, PackedWeight, Tensor | None], Tensor]:
    from ift_kernels.bf16_linear.cpu import bf16_linear_cpu

    return bf16_linear_cpu


def bf16_linear(inputs: Tensor, weight: PackedWeight, bias: Tensor | None = None, backend: str = "auto") -> Tensor:
    """``x W^T + b``: inputs ``[T, K]`` float32 contiguous, bias ``[N]`` float32 -> ``[T, N]`` float32.

    Sums are float32, in the order of the inputs, with one rounding a product and addition; so a row's result does not
    depend on the other rows of the batch, bit for bit.
    """
    if uses_cpu(inputs, backend):
        return _cpu()(inputs, weight, bias)
    from ift_kernels.bf16_linear.reference import bf16_linear_reference

    return bf16_linear_reference(inputs, weight, bias)
