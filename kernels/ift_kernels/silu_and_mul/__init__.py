"""The gated activation of Llama-like feed-forward layers."""

from ift_kernels.silu_and_mul.api import silu_and_mul

__all__ = ["silu_and_mul"]
