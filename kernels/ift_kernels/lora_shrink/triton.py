"""The first half of batched LoRA on a GPU.

A program owns 16 rows of one adapter, one part, a block of ranks and a slice of the inputs; the slices of K fill the
device when few rows decode, and are added up by the second half in a fixed order, without atomics.
"""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ift_kernels.lora import LoraRows, LoraTable

TILE_ROWS = 16


@triton.jit(
    do_not_specialize=["rows"],
    do_not_specialize_on_alignment=["order_ptr", "tile_adapter_ptr", "tile_start_ptr", "tile_count_ptr"],
)
def _lora_shrink_kernel(
    x_ptr,
    a_ptr,
    rank_ptr,
    order_ptr,
    tile_adapter_ptr,
    tile_start_ptr,
    tile_count_ptr,
    t_ptr,
    stride_x,
    rows,
    K: tl.constexpr,
    PARTS: tl.constexpr,
    R: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPAN: tl.constexpr,
):
    """t[split, part, start + m, r] = sum over the split's k of x[order[start + m], k] A[r, k]."""
    tile = tl.program_id(0)
    part = tl.program_id(1) % PARTS
    rank_block = tl.program_id(1) // PARTS
    split = tl.program_id(2)
    count = tl.load(tile_count_ptr + tile)
    entry = tl.load(tile_adapter_ptr + tile) * PARTS + part
    rank = tl.load(rank_ptr + entry)
    first_rank = rank_block * BLOCK_R
    if count == 0 or first_rank >= rank:
        return
    start = tl.load(tile_start_ptr + tile)
    offs_m = tl.arange(0, BLOCK_M)
    offs_r = first_rank + tl.arange(0, BLOCK_R)
    offs_k = tl.arange(0, BLOCK_K)
    row = tl.load(order_ptr + start + offs_m, mask=offs_m < count, other=0).to(tl.int64)
    factor = tl.load(a_ptr + entry).to(tl.pointer_type(x_ptr.dtype.element_ty))
    factor = tl.multiple_of(factor, 16)
    x_row = x_ptr + row[:, None] * stride_x
    a_row = factor + offs_r[None, :] * K
    acc = tl.zeros([BLOCK_M, BLOCK_R], tl.float32)
    for k0 in range(0, SPAN, BLOCK_K):
        k = split * SPAN + k0 + offs_k
        x = tl.load(x_row + k[None, :], mask=(offs_m < count)[:, None] & (k < K)[None, :], other=0.0)
        a = tl.load(a_row + k[:, None], mask=(offs_r < rank)[None, :] & (k < K)[:, None], other=0.0)
        acc = tl.dot(x, a, acc, input_precision="ieee")
    place = ((split * PARTS + part) * rows + start + offs_m).to(tl.int64)
    inside = (offs_m < count)[:, None] & (offs_r < rank)[None, :]
    tl.store(t_ptr + place[:, None] * R + offs_r[None, :], acc, mask=inside)


def _splits(width: int, tiles: int) -> int:
    """Slices of K: many while few tiles would leave the device idle."""
    return min(8 if tiles <= 64 else 2, max(1, width // 256))


def lora_shrink_triton(inputs: Tensor, table: LoraTable, rows: LoraRows, *, fixed: bool = False) -> Tensor:
    """See :func:`ift_kernels.lora_shrink.lora_shrink`; tiles hold at most 16 rows. fixed: as many slices in any batch.

    Programs run on slices that few tiles would need to fill the device, however many tiles there are.
    """
    width, tiles, count = inputs.shape[1], rows.tile_adapter.shape[0], rows.order.shape[0]
    rank = table.padded_rank
    block_rank = min(64, triton.next_power_of_2(rank))
    block_width = min(128, max(16, triton.next_power_of_2(width)))
    splits = _splits(width, 1 if fixed else tiles)
    span = -(-width // (splits * block_width)) * block_width
    shrunk = torch.empty((splits, table.parts, count, rank), dtype=torch.float32, device=inputs.device)
    grid = (tiles, table.parts * triton.cdiv(rank, block_rank), splits)
    _lora_shrink_kernel[grid](
        inputs, table.a_addresses, table.ranks, rows.order, rows.tile_adapter, rows.tile_start, rows.tile_count,
        shrunk, inputs.stride(0), count,
        K=width, PARTS=table.parts, R=rank, BLOCK_M=TILE_ROWS, BLOCK_R=block_rank, BLOCK_K=block_width, SPAN=span,
        num_warps=4, num_stages=4,
    )  # fmt: skip
    return shrunk
