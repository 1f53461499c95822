"""One pass for ``silu(gate) * up``."""

from __future__ import annotations

from torch import Tensor

from ift_kernels.backend import uses_cpu, uses_triton


def silu_and_mul(gate_up: Tensor, backend: str = "auto") -> Tensor:
    """``silu(gate) * up`` for ``gate_up = [gate; up]``.

    gate_up: ``[T, 2 I]`` contiguous float32 or bfloat16; returns ``[T, I]``. silu(x) = x / (1 + exp(-x)) is
    rounded to the dtype before the product, as two separate operations would. On the CPU I must be a
    multiple of 16.
    """
    if uses_cpu(gate_up, backend) and gate_up.shape[1] % 32 == 0:
        from ift_kernels.silu_and_mul.cpu import silu_and_mul_cpu

        return silu_and_mul_cpu(gate_up)
    if uses_triton(gate_up, backend):
        from ift_kernels.silu_and_mul.triton import silu_and_mul_triton

        return silu_and_mul_triton(gate_up)
    from ift_kernels.silu_and_mul.reference import silu_and_mul_reference

    return silu_and_mul_reference(gate_up)
