"""Attention of one query token per row over a paged cache."""

from ift_kernels.paged_decode.api import paged_decode

__all__ = ["paged_decode"]
