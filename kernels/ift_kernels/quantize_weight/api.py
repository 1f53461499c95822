"""Rounds a weight to 8 bits, symmetric, or to 4 with a minimum: a scale for each output and group of inputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from ift_kernels.backend import uses_cpu
from ift_kernels.quantize_weight.reference import quantize_weight_reference
from ift_kernels.quantized_linear import QuantizedWeight, runs_here
from ift_kernels.quantized_linear.types import GROUP, PANEL


def quantize_weight(
    weight: Tensor, bits: int, backend: str = "auto", *, in_place: bool = False
) -> QuantizedWeight | None:
    """A weight ``[N, K]`` rounded. in_place: the weight itself becomes what the codes stand for.

    None, and nothing has changed, where N is no multiple of 16, K none of 32, or a value is not finite or beyond
    float16.

    Eight bits: the largest weight of a group is 127 steps. Four bits: 15 steps from the smallest of a group to the
    largest, so that a group need not lie around 0.
    """
    outputs, inputs = weight.shape
    if outputs % PANEL or inputs % GROUP:
        return None
    values = weight.detach()
    if uses_cpu(weight, backend) and runs_here() and weight.dtype in (torch.float32, torch.bfloat16):
        return _cpu()(values, bits, in_place)
    found = quantize_weight_reference(values, bits)
    if in_place and found is not None:
        values.copy_(found.dense())
    return found


@cache
def _cpu() -> Callable[[Tensor, int, bool], QuantizedWeight | None]:
    from ift_kernels.quantize_weight.cpu import quantize_weight_cpu

    return quantize_weight_cpu
