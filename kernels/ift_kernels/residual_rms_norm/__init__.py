"""RMS normalisation with the residual addition that precedes it."""

from ift_kernels.residual_rms_norm.api import residual_rms_norm

__all__ = ["residual_rms_norm"]
