"""What is known of every row of logits before a token is drawn from it."""

from ift_kernels.row_statistics.api import row_statistics
from ift_kernels.row_statistics.types import TOP, RowStatistics

__all__ = ["TOP", "RowStatistics", "row_statistics"]
