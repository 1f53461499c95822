"""``x W^T + b`` in float32 with a weight that is read as bf16: half the bytes of float32."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ift_kernels.backend import uses_cpu
from ift_kernels.bf16_linear.types import PANEL, PackedWeight


def pack_weight(*weights: Tensor, backend: str = "auto") -> PackedWeight | None:
    """Weights ``[N, K]`` of the same inputs packed as one, the outputs of the first first; they stay as they are.

    None where bf16 does not hold every value of them, or an N or K is no multiple of 16. Raises ValueError where they
    have other inputs.
    """
    if len({weight.shape[1] for weight in weights}) != 1:
        raise ValueError("weights to pack must have the same inputs")
    if any(size % PANEL for weight in weights for size in weight.shape):
        return None
    if all(weight.dtype == torch.float32 and uses_cpu(weight, backend) for weight in weights):
        packed: PackedWeight | None = _cpu().pack_weights_cpu([weight.detach().contiguous() for weight in weights])
        return packed
    from ift_kernels.bf16_linear.reference import pack_weights_reference

    return pack_weights_reference([weight.detach() for weight in weights])


@cache
def _cpu() -> Any:
    from ift_kernels.bf16_linear import cpu

    return cpu


def bf16_linear(inputs: Tensor, weight: PackedWeight, bias: Tensor | None = None, backend: str = "auto") -> Tensor:
    """``x W^T + b``: inputs ``[T, K]`` float32 contiguous, bias ``[N]`` float32 -> ``[T, N]`` float32.

    Sums are float32, in the order of the inputs, with one rounding a product and addition; so a row's result does not
    depend on the other rows of the batch, bit for bit.
    """
    if uses_cpu(inputs, backend):
        output: Tensor = _cpu().bf16_linear_cpu(inputs, weight, bias)
        return output
    from ift_kernels.bf16_linear.reference import bf16_linear_reference

    return bf16_linear_reference(inputs, weight, bias)
