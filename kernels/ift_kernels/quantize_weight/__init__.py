"""Weights rounded to 8 or 4 bits."""

from ift_kernels.quantize_weight.api import quantize_weight

__all__ = ["quantize_weight"]
