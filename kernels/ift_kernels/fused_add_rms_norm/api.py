"""One pass for ``hidden += delta; return rms_norm(hidden)``."""

from __future__ import annotations

from torch import Tensor

from ift_kernels.backend import uses_cpu, uses_triton


def fused_add_rms_norm(
    hidden: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float, backend: str = "auto"
) -> Tensor:
    """Add ``delta`` to ``hidden`` in place and return ``weight * hidden / sqrt(mean(hidden^2) + epsilon)``.

    hidden, delta: ``[T, d]`` contiguous float32 or bfloat16; weight: ``[d]`` of the same dtype. The mean is
    float32 and the quotient is rounded to the dtype before the weight multiplies it, as transformers'
    Llama does. On the CPU d must be a multiple of 16.
    """
    if uses_cpu(hidden, backend) and hidden.shape[1] % 16 == 0:
        from ift_kernels.fused_add_rms_norm.cpu import fused_add_rms_norm_cpu

        return fused_add_rms_norm_cpu(hidden, delta, weight, epsilon)
    if uses_triton(hidden, backend):
        from ift_kernels.fused_add_rms_norm.triton import fused_add_rms_norm_triton

        return fused_add_rms_norm_triton(hidden, delta, weight, epsilon)
    from ift_kernels.fused_add_rms_norm.reference import fused_add_rms_norm_reference

    return fused_add_rms_norm_reference(hidden, delta, weight, epsilon)
