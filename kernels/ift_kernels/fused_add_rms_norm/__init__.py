"""RMS normalisation with the residual addition that precedes it."""

from ift_kernels.fused_add_rms_norm.api import fused_add_rms_norm

__all__ = ["fused_add_rms_norm"]
