"""The temperature of every row, by the head of its adapter."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ift_kernels.backend import uses_cpu, uses_triton
from ift_kernels.row_statistics import RowStatistics

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
    """What varies by row, all ``[R]``: slots int32, 0 for a row that keeps its temperature; instructions int64, device
    addresses of ``W_c c [width]`` float32, 0 for none; lowest and highest float32, between which the temperature is
    put."""

    slots: Tensor
    instructions: Tensor
    lowest: Tensor
    highest: Tensor


def temperature_heads(
    hidden: Tensor, statistics: RowStatistics, base: Tensor, table: HeadTable, rows: HeadRows, backend: str = "auto"
) -> Tensor:
    """``T = base exp(ln 3 tanh(w . gelu(W_h h + W_c c + W_f [entropy, p1 - p2] + b_h) + b))``, ``[R]`` float32.

    hidden: ``[R, d]`` float32 or bfloat16, after the last normalisation; base: ``[R]`` float32. Computed in float32
    whatever the dtype, the gelu by the error function. A head of zeros gives the base bit for bit, and 0 stays 0
    (greedy). Rows never meet: a row's temperature is the same in any batch.
    """
    if uses_cpu(hidden, backend):
        from ift_kernels.temperature_heads.cpu import temperature_heads_cpu

        return temperature_heads_cpu(hidden, statistics, base, table, rows)
    if uses_triton(hidden, backend):
        from ift_kernels.temperature_heads.triton import temperature_heads_triton

        return temperature_heads_triton(hidden, statistics, base, table, rows)
    from ift_kernels.temperature_heads.reference import temperature_heads_reference

    return temperature_heads_reference(hidden, statistics, base, table, rows)
