"""The gated activation of Llama-like feed-forward layers."""

from ift_kernels.silu_mul.api import silu_mul

__all__ = ["silu_mul"]
