"""The temperature of every row, by the head of its adapter."""

from __future__ import annotations

from torch import Tensor

from ift_kernels.backend import uses_cpu, uses_triton
from ift_kernels.row_statistics.types import RowStatistics
from ift_kernels.temperature_heads.types import HeadRows, HeadTable


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
