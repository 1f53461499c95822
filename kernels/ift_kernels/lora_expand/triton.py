"""The second half of batched LoRA on a GPU: a program owns 16 rows of one adapter and a block of a part's columns."""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ift_kernels.lora import LoraRows, LoraTable

TILE_ROWS = 16


@triton.jit(
    do_not_specialize=["rows"],
    do_not_specialize_on_alignment=["order_ptr", "tile_adapter_ptr", "tile_start_ptr", "tile_count_ptr"],
)
def _lora_expand_kernel(
    t_ptr, b_ptr, rank_ptr, scale_ptr, bounds_ptr, order_ptr, tile_adapter_ptr, tile_start_ptr, tile_count_ptr, y_ptr,
    stride_y, rows,
    SPLITS: tl.constexpr, PARTS: tl.constexpr, R: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """y[order[start + m], n] += scale sum_r (sum_split t[split, part, start + m, r]) B^T[r, n]."""
    tile = tl.program_id(0)
    part = tl.program_id(1)
    count = tl.load(tile_count_ptr + tile)
    entry = tl.load(tile_adapter_ptr + tile) * PARTS + part
    rank = tl.load(rank_ptr + entry)
    first = tl.load(bounds_ptr + part)
    columns = tl.load(bounds_ptr + part + 1) - first
    column = tl.program_id(2) * BLOCK_N
    if count == 0 or rank == 0 or column >= columns:
        return
    start = tl.load(tile_start_ptr + tile)
    offs_m = tl.arange(0, BLOCK_M)
    offs_n = column + tl.arange(0, BLOCK_N)
    offs_r = tl.arange(0, BLOCK_R)
    row_ok = offs_m < count
    factor = tl.load(b_ptr + entry).to(tl.pointer_type(y_ptr.dtype.element_ty))
    factor = tl.multiple_of(factor, 16)
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for r0 in range(0, rank, BLOCK_R):
        r = r0 + offs_r
        t = tl.zeros([BLOCK_M, BLOCK_R], tl.float32)
        for split in tl.static_range(SPLITS):
            place = ((split * PARTS + part) * rows + start + offs_m).to(tl.int64)
            t += tl.load(t_ptr + place[:, None] * R + r[None, :], mask=row_ok[:, None] & (r < rank)[None, :], other=0.0)
        spot = r[:, None].to(tl.int64) * columns + offs_n[None, :]
        b = tl.load(factor + spot, mask=(r < rank)[:, None] & (offs_n < columns)[None, :], other=0.0)
        acc = tl.dot(t.to(b.dtype), b, acc, input_precision="ieee")
    row = tl.load(order_ptr + start + offs_m, mask=row_ok, other=0).to(tl.int64)
    place_y = y_ptr + row[:, None] * stride_y + first + offs_n[None, :]
    ok = row_ok[:, None] & (offs_n < columns)[None, :]
    y = tl.load(place_y, mask=ok, other=0.0).to(tl.float32) + acc * tl.load(scale_ptr + entry)
    tl.store(place_y, y.to(y_ptr.dtype.element_ty), mask=ok)


def lora_expand_triton(shrunk: Tensor, table: LoraTable, rows: LoraRows, output: Tensor) -> None:
    """See :func:`ift_kernels.lora_expand.lora_expand`; tiles hold at most 16 rows."""
    splits, parts, count, rank = shrunk.shape
    widest = max(end - first for first, end in zip(table.columns, table.columns[1:], strict=False))
    block_columns = min(128, max(16, triton.next_power_of_2(widest)))
    grid = (rows.tile_adapter.shape[0], parts, triton.cdiv(widest, block_columns))
    _lora_expand_kernel[grid](
        shrunk, table.b_addresses, table.ranks, table.scales, table.bounds, rows.order, rows.tile_adapter,
        rows.tile_start, rows.tile_count, output, output.stride(0), count,
        SPLITS=splits, PARTS=parts, R=rank, BLOCK_M=TILE_ROWS, BLOCK_R=min(32, rank), BLOCK_N=block_columns,
        num_warps=4, num_stages=3,
    )  # fmt: skip
