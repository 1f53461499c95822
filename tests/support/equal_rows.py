"""Statistics of rows that are all the same, computed once: in Triton's interpreter they cost as much as a draw."""

from __future__ import annotations

from torch import Tensor

from ift_kernels.row_statistics import RowStatistics, row_statistics


def equal_rows(row: Tensor, count: int, backend: str) -> tuple[Tensor, RowStatistics | None]:
    """``count`` times the logits ``[V]`` with their statistics; None on a CPU, where the draw finds them itself."""
    logits = row.repeat(count, 1)
    if backend == "cpu":
        return logits, None
    of_one = row_statistics(logits[:1], backend)
    return logits, RowStatistics(
        of_one.measures.repeat(1, count), of_one.top_ids.repeat(count, 1), of_one.top_log_probs.repeat(count, 1)
    )
