"""Predicted temperatures on a GPU: one launch, a row a program."""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ift_kernels.row_statistics.types import ENTROPY, P1, P2, RowStatistics
from ift_kernels.temperature_heads.types import LARGEST_FACTOR, HeadRows, HeadTable

_ENTROPY, _P1, _P2 = tl.constexpr(ENTROPY), tl.constexpr(P1), tl.constexpr(P2)
_LOG_FACTOR = tl.constexpr(math.log(LARGEST_FACTOR))


@triton.jit(
    do_not_specialize=["rows", "stride"],
    do_not_specialize_on_alignment=["base_ptr", "slots_ptr", "instructions_ptr", "lowest_ptr", "highest_ptr"],
)
def _temperature_kernel(
    hidden_ptr, stride, measures_ptr, rows, base_ptr, matrices_ptr, vectors_ptr, widths_ptr, biases_ptr,
    slots_ptr, instructions_ptr, lowest_ptr, highest_ptr, output_ptr,
    D: tl.constexpr, BLOCK: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """One row's temperature, its features taken FEATURES at a time."""
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + row)
    width = tl.load(widths_ptr + slot)
    temperature = tl.load(base_ptr + row)
    if (slot == 0) | (temperature == 0.0):
        tl.store(output_ptr + row, temperature)
        return
    matrix = tl.load(matrices_ptr + slot).to(tl.pointer_type(hidden_ptr.dtype.element_ty))
    matrix = tl.multiple_of(matrix, 16)
    vectors = tl.load(vectors_ptr + slot).to(tl.pointer_type(tl.float32))
    address = tl.load(instructions_ptr + row)
    instruction = address.to(tl.pointer_type(tl.float32))
    known = tl.where(address != 0, width, 0)
    entropy = tl.load(measures_ptr + _ENTROPY * rows + row)
    margin = tl.load(measures_ptr + _P1 * rows + row) - tl.load(measures_ptr + _P2 * rows + row)
    total = tl.load(biases_ptr + slot)
    for first in range(0, width, FEATURES):
        feature = first + tl.arange(0, FEATURES)
        inside = feature < width
        products = tl.zeros([FEATURES, BLOCK], tl.float32)
        for start in range(0, D, BLOCK):
            k = start + tl.arange(0, BLOCK)
            h = tl.load(hidden_ptr + row * stride + k, mask=k < D, other=0.0).to(tl.float32)
            w = tl.load(matrix + feature[:, None] * D + k[None, :], mask=inside[:, None] & (k < D)[None, :], other=0.0)
            products += w.to(tl.float32) * h[None, :]
        x = tl.sum(products, 1) + tl.load(vectors + feature, mask=inside, other=0.0)
        x += tl.load(vectors + width + feature, mask=inside, other=0.0) * entropy
        x += tl.load(vectors + 2 * width + feature, mask=inside, other=0.0) * margin
        x += tl.load(instruction + feature, mask=feature < known, other=0.0)
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
        total += tl.sum(tl.load(vectors + 3 * width + feature, mask=inside, other=0.0) * x, 0)
    # tanh by one exponential of a negative number: no overflow, and 0 exactly at 0.
    e = tl.exp(-2.0 * tl.abs(total))
    output = tl.where(total < 0.0, e - 1.0, 1.0 - e) / (1.0 + e)
    temperature *= tl.exp(output * _LOG_FACTOR)
    temperature = tl.minimum(tl.maximum(temperature, tl.load(lowest_ptr + row)), tl.load(highest_ptr + row))
    tl.store(output_ptr + row, temperature)


def temperature_heads_triton(
    hidden: Tensor, statistics: RowStatistics, base: Tensor, table: HeadTable, rows: HeadRows
) -> Tensor:
    """See :func:`ift_kernels.temperature_heads.temperature_heads`. hidden may be float16 too; rows may be strided."""
    count, width = hidden.shape
    output = torch.empty(count, dtype=torch.float32, device=hidden.device)
    _temperature_kernel[(count,)](
        hidden,
        hidden.stride(0),
        statistics.measures,
        count,
        base,
        table.matrices,
        table.vectors,
        table.widths,
        table.biases,
        rows.slots,
        rows.instructions,
        rows.lowest,
        rows.highest,
        output,
        D=width,
        BLOCK=min(256, triton.next_power_of_2(width)),
        FEATURES=16,
        num_warps=4,
    )
    return output
