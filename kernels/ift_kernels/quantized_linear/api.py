"""``x W^T + b`` with a weight of 8 or 4 bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from torch import Tensor

from ift_kernels.backend import uses_cpu
from ift_kernels.quantized_linear.types import QuantizedWeight


@cache
def runs_here() -> bool:
    """Whether this processor has the instructions of the compiled kernel."""
    from ift_kernels.cpu_simd.integers import available

    return available()


@cache
def _cpu() -> Callable[[Tensor, QuantizedWeight, Tensor | None], Tensor]:
    from ift_kernels.quantized_linear.cpu import quantized_linear_cpu

    return quantized_linear_cpu


def quantized_linear(
    inputs: Tensor, weight: QuantizedWeight, bias: Tensor | None = None, backend: str = "auto"
) -> Tensor:
    """``x W^T + b``: inputs ``[T, K]`` float32 or bfloat16, contiguous, bias ``[N]`` float32 -> ``[T, N]``, as inputs.

    The inputs of a row are rounded, a group at a time, to 127 steps of the group's largest magnitude; a group's
    products are added as integers, exactly, and the groups' sums in float32, in order. So a row's result does not
    depend on the other rows of the batch, bit for bit.
    """
    if uses_cpu(inputs, backend) and runs_here():
        return _cpu()(inputs, weight, bias)
    from ift_kernels.quantized_linear.reference import quantized_linear_reference

    return quantized_linear_reference(inputs, weight, bias)
