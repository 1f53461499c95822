"""``x W^T + b`` with one order of additions."""

from __future__ import annotations

from torch import Tensor

from ift_kernels.backend import uses_triton


def fixed_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None, backend: str = "auto") -> Tensor:
    """``inputs W^T + bias``: ``[T, K]``, ``[N, K]``, ``[N]`` -> ``[T, N]``, all of one dtype, unit column strides.

    On a GPU a vendor's product chooses tiles, and whether to cut K in parts, by the number of rows, so a row's last
    bits depend on how many are computed with it (He et al., Defeating Nondeterminism in LLM Inference, 2025). Here
    tiles are the same for any number of rows, and K is added up in one order. Accumulates in float32; bias is added
    before the result is rounded. backend: see :mod:`ift_kernels.backend`; the reference runs on the CPU.
    """
    if uses_triton(inputs, backend):
        from ift_kernels.fixed_linear.triton import fixed_linear_triton

        return fixed_linear_triton(inputs, weight, bias)
    from ift_kernels.fixed_linear.reference import fixed_linear_reference

    return fixed_linear_reference(inputs, weight, bias)
