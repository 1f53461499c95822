"""The heads of a batch's adapters as one launch reads them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

LARGEST_FACTOR = 3.0
"""A head multiplies the temperature by at most this, and divides it by at most this."""
VECTORS = 4
"""Lines of the vectors of a head: bias, weights of the entropy, weights of ``p1 - p2``, weights of the output."""


@dataclass(slots=True)
class HeadTable:
    """The heads of A adapters; slot 0 is the base model's and has none.

    matrices: ``[A]`` int64 device addresses of ``W_h [width, d]``, contiguous, 16-byte aligned, in the hidden states'
    dtype. vectors: ``[A]`` int64 addresses of ``[4, width]`` float32. widths: ``[A]`` int32, 0 without a head. biases:
    ``[A]`` float32, of the output. max_width: an upper bound of the widths. Tensors of a table are changed in place
    only: a CUDA graph may keep their addresses.
    """

    matrices: Tensor
    vectors: Tensor
    widths: Tensor
    biases: Tensor
    max_width: int


@dataclass(slots=True)
class HeadRows:
    """What varies by row, all ``[R]``: slots int32, 0 for a row that keeps its temperature whatever its bounds;
    instructions int64, device
    addresses of ``W_c c [width]`` float32, 0 for none; lowest and highest float32, between which the temperature is
    put."""

    slots: Tensor
    instructions: Tensor
    lowest: Tensor
    highest: Tensor
