"""``t = x A^T`` for rows of many adapters."""

from __future__ import annotations

from torch import Tensor

from ift_kernels.backend import INVARIANT, uses_triton
from ift_kernels.lora import LoraRows, LoraTable


def lora_shrink(inputs: Tensor, table: LoraTable, rows: LoraRows, backend: str = "auto") -> Tensor:
    """``t[p, i] = A[adapter of row order[i], p] x[order[i]]``, for every adapted row and part in one launch.

    inputs: ``[T, K]`` float32, float16 or bfloat16, unit column stride. Returns ``[Z, P, n, R]`` float32: t is the sum
    over Z, left to the second half so that it has one order; R is the table's largest rank rounded up to 16, and
    columns from an adapter's own rank on are undefined.
    """
    if uses_triton(inputs, backend):
        from ift_kernels.lora_shrink.triton import lora_shrink_triton

        return lora_shrink_triton(inputs, table, rows, fixed=backend == INVARIANT)
    from ift_kernels.lora_shrink.reference import lora_shrink_reference

    return lora_shrink_reference(inputs, table, rows)
