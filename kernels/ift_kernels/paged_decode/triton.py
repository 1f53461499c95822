"""Paged decode attention in Triton: a row's keys are split over programs, a second kernel merges the parts.

How many splits a row gets is computed by every program from the lengths on the device, so the grid depends on the
number of rows and on the table's width alone and a CUDA graph may be replayed with any lengths. With t_r tiles of keys
in row r and at most E extra items, tiles are cut into runs of ``size >= sum(t) / E``: then
``sum(ceil(t_r / size)) <= R + E``, the size of the grid.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc,untyped-decorator"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ift_kernels.device import properties
from ift_kernels.instruction import InstructionBias
from ift_kernels.paged_decode.choices import decode_choice, programs_at_once, split_capacity

_LOG2E = math.log2(math.e)
_FEW_ROWS, _MANY_ROWS = 256, 1024
_MERGED_AT_ONCE = 16


@triton.jit
def _first_tile(length, window, BLOCK_N: tl.constexpr, HAS_WINDOW: tl.constexpr):
    first = length * 0
    if HAS_WINDOW:
        first = tl.maximum(length - window, 0) // BLOCK_N
    return first


@triton.jit
def _place_of_item(
    item,
    lengths_ptr,
    rows,
    window,
    one_wave,
    extra,
    BLOCK_N: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
):
    """Row of a work item (not below ``rows``: none), its split of that row, and the row's number of splits."""
    offs = tl.arange(0, ROWS)
    lengths = tl.load(lengths_ptr + offs, mask=offs < rows, other=0)
    tiles = tl.cdiv(lengths, BLOCK_N) - _first_tile(lengths, window, BLOCK_N, HAS_WINDOW)
    total = tl.sum(tiles, 0)
    # Runs of 8 tiles hide the start of a pipeline; shorter ones only if a wave would otherwise stay half empty.
    shortest = tl.minimum(tl.maximum(tl.cdiv(total, one_wave), 2), 8)
    size = tl.maximum(tl.cdiv(total, extra), shortest)
    splits = tl.cdiv(tiles, size)
    ends = tl.cumsum(splits, 0)
    row = tl.sum((ends <= item).to(tl.int32), 0)
    own = offs == row
    count = tl.sum(tl.where(own, splits, 0), 0)
    end = tl.sum(tl.where(own, ends, 0), 0)
    return row, item - end + count, count


@triton.jit(
    do_not_specialize=["window", "rows", "one_wave", "extra", "stride_table", "stride_mask"],
    do_not_specialize_on_alignment=[
        "tables_ptr",
        "sequence_ptr",
        "lengths_ptr",
        "mask_ptr",
        "bias_ptr",
        "adapter_ptr",
        "strength_ptr",
    ],
)
def _paged_decode_split_kernel(
    query_ptr, key_ptr, value_ptr, tables_ptr, sequence_ptr, lengths_ptr,
    mask_ptr, bias_ptr, adapter_ptr, strength_ptr,
    output_ptr, partial_ptr, statistics_ptr, items_ptr,
    score_scale, cap, value_scale, window, rows, one_wave, extra,
    stride_row, stride_head, stride_kn, stride_kh, stride_kd, stride_kb, stride_vn, stride_vh, stride_vb,
    stride_table, stride_mask,
    HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, ROWS: tl.constexpr,
    SPLIT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_CAP: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """One split of one row for the heads of one key-value head; statistics are (maximum, sum) in powers of two."""
    kv_heads: tl.constexpr = HEADS // GROUP
    item = tl.program_id(0) // kv_heads
    kv_head = tl.program_id(0) % kv_heads
    if SPLIT:
        row, split, count = _place_of_item(item, lengths_ptr, rows, window, one_wave, extra, BLOCK_N, ROWS, HAS_WINDOW)
        if row >= rows:
            return
        if (split == 0) & (kv_head == 0):
            tl.store(items_ptr + row * 2, item)
            tl.store(items_ptr + row * 2 + 1, count)
    else:
        row, split, count = item, 0, 1
    length = tl.load(lengths_ptr + row)
    first = _first_tile(length, window, BLOCK_N, HAS_WINDOW)
    tiles = tl.cdiv(length, BLOCK_N) - first
    start = (first + split * tiles // count) * BLOCK_N
    end = tl.minimum((first + (split + 1) * tiles // count) * BLOCK_N, length)
    sequence = tl.load(sequence_ptr + row).to(tl.int64)

    offs_h = tl.arange(0, BLOCK_H)
    offs_d = tl.arange(0, BLOCK_D)
    offs_n = tl.arange(0, BLOCK_N)
    head = kv_head * GROUP + offs_h
    head_ok = offs_h < GROUP
    width_ok = offs_d < WIDTH
    query_at = row.to(tl.int64) * stride_row + head[:, None] * stride_head + offs_d[None, :]
    query = tl.load(query_ptr + query_at, mask=head_ok[:, None] & width_ok[None, :], other=0.0)
    tables_ptr += sequence * stride_table
    key_ptr += kv_head.to(tl.int64) * stride_kh
    value_ptr += kv_head.to(tl.int64) * stride_vh
    if HAS_BIAS:
        mask_ptr += sequence * stride_mask
        boost = tl.load(strength_ptr + sequence) * 1.4426950408889634
        adapter = tl.load(adapter_ptr + sequence).to(tl.int64)
        boost *= tl.load(bias_ptr + adapter * HEADS + head, mask=head_ok, other=0.0)

    top = tl.full([BLOCK_H], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_H], tl.float32)
    mixed = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
    for position in tl.range(start, end, BLOCK_N, num_stages=STAGES):
        n = position + offs_n
        seen = n < end
        if HAS_WINDOW:
            seen &= n >= length - window
        if BLOCK % BLOCK_N == 0:
            # A tile within one block needs one id, and about half the registers.
            block = tl.load(tables_ptr + position // BLOCK).to(tl.int64)
        else:
            block = tl.load(tables_ptr + n // BLOCK, mask=seen, other=0).to(tl.int64)
        key_at = block * stride_kn + (n % BLOCK) * stride_kb
        key = tl.load(
            key_ptr + key_at[None, :] + offs_d[:, None] * stride_kd, mask=seen[None, :] & width_ok[:, None], other=0.0
        )
        if HAS_BIAS:
            # Asked for here, the bytes arrive while the product runs.
            mask = tl.load(mask_ptr + n, mask=seen, other=0)
        scores = tl.dot(query, key.to(query.dtype), input_precision="ieee") * score_scale
        if HAS_CAP:
            # cap tanh(x) = cap - 2 cap / (e^2x + 1); the scale holds 2 log2(e) / softcap.
            scores = cap - 2 * cap / (tl.exp2(scores) + 1)
        if HAS_BIAS:
            scores += boost[:, None] * mask.to(tl.float32)[None, :]
        scores = tl.where(seen[None, :], scores, float("-inf"))
        # Every tile holds a key that is seen, so the maximum is finite.
        new_top = tl.maximum(top, tl.max(scores, 1))
        decay = tl.exp2(top - new_top)
        weights = tl.exp2(scores - new_top[:, None])
        total = total * decay + tl.sum(weights, 1)
        value_at = block * stride_vn + (n % BLOCK) * stride_vb
        value = tl.load(
            value_ptr + value_at[:, None] + offs_d[None, :], mask=seen[:, None] & width_ok[None, :], other=0.0
        )
        weights = weights.to(query.dtype)
        mixed = tl.dot(weights, value.to(query.dtype), mixed * decay[:, None], input_precision="ieee")
        top = new_top

    stored = head_ok[:, None] & width_ok[None, :]
    if SPLIT and count > 1:
        part = item.to(tl.int64) * HEADS + head
        tl.store(partial_ptr + part[:, None] * WIDTH + offs_d[None, :], mixed, mask=stored)
        tl.store(statistics_ptr + part * 2, top, mask=head_ok)
        tl.store(statistics_ptr + part * 2 + 1, total, mask=head_ok)
    else:
        mixed *= (value_scale / tl.where(total > 0.0, total, 1.0))[:, None]
        target = output_ptr + (row.to(tl.int64) * HEADS + head)[:, None] * WIDTH + offs_d[None, :]
        tl.store(target, mixed.to(output_ptr.dtype.element_ty), mask=stored)


@triton.jit(do_not_specialize_on_alignment=["lengths_ptr"])
def _paged_decode_merge_kernel(
    output_ptr,
    partial_ptr,
    statistics_ptr,
    items_ptr,
    lengths_ptr,
    value_scale,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Merge the splits of one row and head; rows with one split are in place already, rows without keys get zeros."""
    own = tl.program_id(0).to(tl.int64)
    row = own // HEADS
    offs_d = tl.arange(0, BLOCK_D)
    width_ok = offs_d < WIDTH
    output_ptr += own * WIDTH + offs_d
    if tl.load(lengths_ptr + row) == 0:
        tl.store(output_ptr, tl.zeros([BLOCK_D], output_ptr.dtype.element_ty), mask=width_ok)
    else:
        item = tl.load(items_ptr + row * 2)
        count = tl.load(items_ptr + row * 2 + 1)
        if count > 1:
            top = tl.full([1], float("-inf"), tl.float32)
            total = tl.zeros([1], tl.float32)
            mixed = tl.zeros([BLOCK_D], tl.float32)
            for first in range(0, count, PARTS):
                split = first + tl.arange(0, PARTS)
                ok = split < count
                part = (item + split).to(tl.int64) * HEADS + own % HEADS
                maxima = tl.load(statistics_ptr + part * 2, mask=ok, other=float("-inf"))
                sums = tl.load(statistics_ptr + part * 2 + 1, mask=ok, other=0.0)
                values = tl.load(
                    partial_ptr + part[:, None] * WIDTH + offs_d[None, :],
                    mask=ok[:, None] & width_ok[None, :],
                    other=0.0,
                )
                new_top = tl.maximum(top, tl.max(maxima, 0))
                decay = tl.exp2(top - new_top)
                weights = tl.exp2(maxima - new_top)
                total = total * decay + tl.sum(weights * sums, 0)
                mixed = mixed * decay + tl.sum(values * weights[:, None], 0)
                top = new_top
            tl.store(output_ptr, (mixed * (value_scale / total)).to(output_ptr.dtype.element_ty), mask=width_ok)


def score_constants(scale: float, softcap: float) -> tuple[float, float]:
    """(factor of q k, cap) of scores in powers of two; with a cap the factor is that of the exponent inside tanh."""
    return (2 * _LOG2E * scale / softcap, softcap * _LOG2E) if softcap else (scale * _LOG2E, 0.0)


def paged_decode_triton(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    row_sequence: Tensor,
    lengths: Tensor,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    instruction: InstructionBias | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> Tensor:
    """See :func:`ift_kernels.paged_decode.paged_decode`. More than 1024 rows fill the device without being split."""
    rows, heads, width = query.shape
    output = torch.empty((rows, heads, width), dtype=query.dtype, device=query.device)
    if not rows:
        return output
    query = query if query.stride(2) == 1 else query.contiguous()
    kv_heads, block = key_cache.shape[1], key_cache.shape[3]
    device, padded = properties(query), max(16, triton.next_power_of_2(width))
    choice = decode_choice(padded, key_cache.element_size())
    split = rows <= _MANY_ROWS
    slots = programs_at_once(device.capability) * device.multiprocessors
    table_tiles = -(-block_tables.shape[1] * block // choice.block_n)
    one_wave, extra, items = split_capacity(rows, kv_heads, slots, table_tiles)
    parts = heads * items if split else 0
    partial = torch.empty((parts, width), dtype=torch.float32, device=query.device)
    statistics = torch.empty((parts, 2), dtype=torch.float32, device=query.device)
    places = torch.empty((rows, 2), dtype=torch.int32, device=query.device)
    score_scale, cap = score_constants(scale * key_scale, softcap)
    bias = instruction
    _paged_decode_split_kernel[((items if split else rows) * kv_heads,)](
        query, key_cache, value_cache, block_tables, row_sequence, lengths,
        None if bias is None else bias.mask, None if bias is None else bias.bias,
        None if bias is None else bias.adapter, None if bias is None else bias.strength,
        output, partial, statistics, places,
        score_scale, cap, value_scale, window, rows, one_wave, extra,
        query.stride(0), query.stride(1), *key_cache.stride(), *value_cache.stride()[:3],
        block_tables.stride(0), 0 if bias is None else bias.mask.stride(0),
        HEADS=heads, GROUP=heads // kv_heads, WIDTH=width, BLOCK=block,
        BLOCK_H=max(16, triton.next_power_of_2(heads // kv_heads)), BLOCK_D=padded, BLOCK_N=choice.block_n,
        ROWS=_FEW_ROWS if rows <= _FEW_ROWS else _MANY_ROWS,
        SPLIT=split, HAS_BIAS=bias is not None, HAS_WINDOW=window > 0, HAS_CAP=softcap > 0,
        STAGES=choice.stages, num_warps=choice.warps, enable_fp_fusion=True,
    )  # fmt: skip
    if split:
        _paged_decode_merge_kernel[(rows * heads,)](
            output,
            partial,
            statistics,
            places,
            lengths,
            value_scale,
            HEADS=heads,
            WIDTH=width,
            BLOCK_D=padded,
            PARTS=_MERGED_AT_ONCE,
            num_warps=4,
            enable_fp_fusion=True,
        )
    return output
