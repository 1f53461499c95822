"""A linear layer whose rows are the same, bit for bit, in any batch."""

from ift_kernels.fixed_linear.api import fixed_linear

__all__ = ["fixed_linear"]
