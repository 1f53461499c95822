"""Drawing tokens from logits, each row in its own way."""

from ift_kernels.sample_rows.api import (
    TOP,
    RowParameters,
    SampledRows,
    SparseAdjustments,
    TokenMasks,
    Truncations,
    sample_rows,
)

__all__ = ["TOP", "RowParameters", "SampledRows", "SparseAdjustments", "TokenMasks", "Truncations", "sample_rows"]
