"""Statistics of raw logits at temperature 1."""

from __future__ import annotations

from torch import Tensor

from ift_kernels.backend import uses_cpu, uses_triton
from ift_kernels.row_statistics.types import RowStatistics


def row_statistics(logits: Tensor, backend: str = "auto") -> RowStatistics:
    """Statistics of each row of logits ``[R, V]`` float32 or bfloat16, at temperature 1.

    One read of the logits is the floor. Right for every finite logit. A row with a NaN or +inf, or of -inf alone, has
    no distribution: its entropy, log mass and probabilities are NaN.
    """
    if uses_cpu(logits, backend):
        from ift_kernels.row_statistics.cpu import row_statistics_cpu

        return row_statistics_cpu(logits)
    if uses_triton(logits, backend):
        from ift_kernels.row_statistics.triton import row_statistics_triton

        return row_statistics_triton(logits)
    from ift_kernels.row_statistics.reference import row_statistics_reference

    return row_statistics_reference(logits)
