"""``y += scale B t`` for rows of many adapters."""

from __future__ import annotations

from torch import Tensor

from ift_kernels.backend import uses_triton
from ift_kernels.lora import LoraRows, LoraTable


def lora_expand(shrunk: Tensor, table: LoraTable, rows: LoraRows, output: Tensor, backend: str = "auto") -> None:
    """``y[order[i], part p] += scale[a, p] B[a, p] t[p, i]`` with a the row's adapter, for every part in one launch.

    shrunk: ``[Z, P, n, R]`` float32 from :func:`ift_kernels.lora_shrink.lora_shrink`; output: ``[T, N]`` with unit
    column stride, changed in place. The sum over the rank is float32; it is added to y in float32 and rounded once.
    """
    if uses_triton(output, backend):
        from ift_kernels.lora_expand.triton import lora_expand_triton

        return lora_expand_triton(shrunk, table, rows, output)
    from ift_kernels.lora_expand.reference import lora_expand_reference

    return lora_expand_reference(shrunk, table, rows, output)
