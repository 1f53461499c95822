"""Drawing tokens from logits, and the statistics every drawn or scored token carries."""

from ift_kernels.sample_rows.api import TOP, RowParameters, SampledRows, SparseAdjustments, sample_rows

__all__ = ["TOP", "RowParameters", "SampledRows", "SparseAdjustments", "sample_rows"]
