"""Paged decode attention on the CPU: one work item per tile of rows and key-value head.

Keys are stored transposed in a block, ``[width, block_size]``, so that 16 keys fill a vector and scores need no
horizontal sums. A tile is up to four consecutive rows of one sequence; each loaded key and value serves all heads of
the tile. What a row gets does not depend on its tile, bit for bit: every head sums in the same order, and what a
longer neighbour adds is multiplied by exact zeros.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ift_kernels.cpu_simd import openmp, simd
from ift_kernels.cpu_simd.functions import exp, tanh
from ift_kernels.cpu_simd.inner import inlined, inner
from ift_kernels.cpu_simd.simd import (
    LANES,
    add,
    fma,
    keep_lanes,
    load,
    load_bytes,
    load_i32,
    load_i64,
    load_one,
    max_lanes,
    maximum,
    mul,
    prefetch,
    splat,
    store,
    store_one,
    sub,
    sum_lanes,
    zero,
)
from ift_kernels.instruction import InstructionBias

# Slots of the argument block. The two counters are bumped by the workers.
_NEXT, _WORKER, _QUERY, _KEYS, _VALUES, _OUTPUT, _TABLES, _SEQUENCE, _LENGTHS, _SCRATCH = range(10)
_TILES, _HEADS, _KV_HEADS, _WIDTH, _BLOCK, _PADDED, _TABLE_STRIDE, _SCRATCH_STRIDE, _WINDOW = range(10, 19)
_SCALE, _SOFTCAP, _QUERY_STRIDE, _TILE_STARTS, _TILE_ROWS = range(19, 24)
_MASK, _MASK_STRIDE, _BIAS, _ADAPTER, _STRENGTH, _SLOTS = range(24, 30)
_FP = np.float32(0)


@inlined
def _query(queries, head, width, d):
    return splat(load_one(_FP, queries + 4 * head * width, d))


@inlined
def _scores_of_block(kind, keys, queries, heads, width, block, scratch, stride, position):
    """Scores of ``block`` keys for all heads, three heads sharing each key load.

    Even and odd columns are summed apart in every case: two chains hide the latency, and the order is always the same.
    """
    for lane in range(0, block, LANES):
        head = 0
        while head + 3 <= heads:
            a0, a1, b0, b1, c0, c1 = zero(), zero(), zero(), zero(), zero(), zero()
            for d in range(0, width - 1, 2):
                k0 = load(kind, keys, d * block + lane)
                k1 = load(kind, keys, (d + 1) * block + lane)
                a0, a1 = fma(_query(queries, head, width, d), k0, a0), fma(_query(queries, head, width, d + 1), k1, a1)
                b0 = fma(_query(queries, head + 1, width, d), k0, b0)
                b1 = fma(_query(queries, head + 1, width, d + 1), k1, b1)
                c0 = fma(_query(queries, head + 2, width, d), k0, c0)
                c1 = fma(_query(queries, head + 2, width, d + 1), k1, c1)
            if width % 2:
                k0 = load(kind, keys, (width - 1) * block + lane)
                a0 = fma(_query(queries, head, width, width - 1), k0, a0)
                b0 = fma(_query(queries, head + 1, width, width - 1), k0, b0)
                c0 = fma(_query(queries, head + 2, width, width - 1), k0, c0)
            store(_FP, scratch, (head + 0) * stride + position + lane, add(a0, a1))
            store(_FP, scratch, (head + 1) * stride + position + lane, add(b0, b1))
            store(_FP, scratch, (head + 2) * stride + position + lane, add(c0, c1))
            head += 3
        while head < heads:
            a0, a1 = zero(), zero()
            for d in range(0, width - 1, 2):
                a0 = fma(_query(queries, head, width, d), load(kind, keys, d * block + lane), a0)
                a1 = fma(_query(queries, head, width, d + 1), load(kind, keys, (d + 1) * block + lane), a1)
            if width % 2:
                k0 = load(kind, keys, (width - 1) * block + lane)
                a0 = fma(_query(queries, head, width, width - 1), k0, a0)
            store(_FP, scratch, head * stride + position + lane, add(a0, a1))
            head += 1


@inlined
def _softmax(scratch, offset, first, start, end, last, softcap, mask, boost):
    """Turn scores into weights in place, 0 outside ``[start, end)`` up to ``last``; returns 1 over their sum, and 0 for
    a padding row of no keys.

    ``mask`` is the address of a byte per key, 0 for none; ``boost`` is what a set byte adds to the capped score.
    """
    low = np.float32(-np.inf)
    best = splat(low)
    for position in range(first, end, LANES):
        s = load(_FP, scratch, offset + position)
        if softcap > 0.0:
            s = mul(splat(softcap), tanh(mul(splat(np.float32(1.0) / softcap), s)))
        if mask != 0:
            s = fma(splat(boost), load_bytes(mask, position), s)
        s = keep_lanes(s, start - position, end - position, low)
        store(_FP, scratch, offset + position, s)
        best = maximum(best, s)
    top = splat(max_lanes(best))
    total = zero()
    for position in range(first, end, LANES):
        p = exp(sub(load(_FP, scratch, offset + position), top))
        store(_FP, scratch, offset + position, p)
        total = add(total, p)
    for position in range(end, last):
        store_one(_FP, scratch, offset + position, np.float32(0.0))
    whole = sum_lanes(total)
    return np.float32(1.0) / whole if whole != 0.0 else np.float32(0.0)


@inlined
def _mix_three(kind, values, table, kv_stride, weights, stride, start, end, block, padded, column, out):
    """sum_j p_j v_j of 32 columns for three heads."""
    a0, a1, b0, b1, c0, c1 = zero(), zero(), zero(), zero(), zero(), zero()
    position = start
    while position < end:
        index = position // block
        stop = min(end, (index + 1) * block)
        base = load_i32(table, index) * kv_stride + column - index * block * padded
        for j in range(position, stop):
            v0, v1 = load(kind, values, base + j * padded), load(kind, values, base + j * padded + 16)
            p = splat(load_one(_FP, weights, j))
            a0, a1 = fma(p, v0, a0), fma(p, v1, a1)
            p = splat(load_one(_FP, weights, stride + j))
            b0, b1 = fma(p, v0, b0), fma(p, v1, b1)
            p = splat(load_one(_FP, weights, 2 * stride + j))
            c0, c1 = fma(p, v0, c0), fma(p, v1, c1)
        position = stop
    store(_FP, out, column, a0)
    store(_FP, out, column + 16, a1)
    store(_FP, out, padded + column, b0)
    store(_FP, out, padded + column + 16, b1)
    store(_FP, out, 2 * padded + column, c0)
    store(_FP, out, 2 * padded + column + 16, c1)


@inlined
def _mix_one(kind, values, table, kv_stride, weights, start, end, block, padded, column, out):
    """sum_j p_j v_j of 16 columns for one head."""
    a0 = zero()
    position = start
    while position < end:
        index = position // block
        stop = min(end, (index + 1) * block)
        base = load_i32(table, index) * kv_stride + column - index * block * padded
        for j in range(position, stop):
            a0 = fma(splat(load_one(_FP, weights, j)), load(kind, values, base + j * padded), a0)
        position = stop
    store(_FP, out, column, a0)


@inlined
def _mix_values(kind, values, table, kv_stride, weights, stride, heads, start, end, block, padded, out):
    """Weighted sums of the values for all heads, ``[heads, padded]`` into ``out``."""
    head = 0
    while head < heads:
        wide = head + 3 <= heads
        own, result = weights + 4 * head * stride, out + 4 * head * padded
        column = 0
        while column < padded:
            if wide and column + 32 <= padded:
                _mix_three(kind, values, table, kv_stride, own, stride, start, end, block, padded, column, result)
                column += 32
            else:
                for extra in range(3 if wide else 1):
                    _mix_one(
                        kind,
                        values,
                        table,
                        kv_stride,
                        own + 4 * extra * stride,
                        start,
                        end,
                        block,
                        padded,
                        column,
                        result + 4 * extra * padded,
                    )
                column += 16
        head += 3 if wide else 1


@inlined
def _ask_for(address, size):
    for line in range(0, size, 64):
        prefetch(address + line)


@inner
def _tile(kind, size, args, first_row, rows, kv_head, queries, out, scratch):
    """Rows ``first_row .. first_row + rows - 1`` for one key-value head."""
    all_heads, kv_heads = load_i64(args, _HEADS), load_i64(args, _KV_HEADS)
    width, block, padded = load_i64(args, _WIDTH), load_i64(args, _BLOCK), load_i64(args, _PADDED)
    group = all_heads // kv_heads
    stride, window = load_i64(args, _SCRATCH_STRIDE), load_i64(args, _WINDOW)
    scale, softcap = load_one(_FP, args, _SCALE * 2), load_one(_FP, args, _SOFTCAP * 2)
    lengths = load_i64(args, _LENGTHS)
    heads = rows * group
    last = load_i32(lengths, first_row + rows - 1)
    shortest = load_i32(lengths, first_row)
    start = max(0, shortest - window) if window > 0 else 0
    sequence = load_i32(load_i64(args, _SEQUENCE), first_row)
    table = load_i64(args, _TABLES) + 4 * sequence * load_i64(args, _TABLE_STRIDE)
    for row in range(rows):
        source = (first_row + row) * load_i64(args, _QUERY_STRIDE) + kv_head * group * width
        for i in range(group * width):
            store_one(_FP, queries, row * group * width + i, scale * load_one(kind, load_i64(args, _QUERY), source + i))
    key_bytes, value_bytes = size * width * block, size * block * padded
    keys = load_i64(args, _KEYS) + kv_head * key_bytes
    values = load_i64(args, _VALUES) + kv_head * value_bytes
    first_block, end_block = start // block, (last + block - 1) // block
    for index in range(first_block, end_block):
        place = load_i32(table, index)
        _ask_for(values + place * kv_heads * value_bytes, value_bytes)
        if index + 1 < end_block:
            _ask_for(keys + load_i32(table, index + 1) * kv_heads * key_bytes, key_bytes)
        _scores_of_block(
            kind, keys + place * kv_heads * key_bytes, queries, heads, width, block, scratch, stride, index * block
        )
    inverses = out + 4 * heads * padded
    mask, boost, adapter, strength = load_i64(args, _MASK), np.float32(0), 0, np.float32(0)
    if mask != 0:
        mask += sequence * load_i64(args, _MASK_STRIDE)
        adapter = load_i32(load_i64(args, _ADAPTER), sequence)
        strength = load_one(_FP, load_i64(args, _STRENGTH), sequence)
    for head in range(heads):
        end = load_i32(lengths, first_row + head // group)
        own_start = max(0, end - window) if window > 0 else 0
        if mask != 0:
            place = adapter * all_heads + kv_head * group + head % group
            boost = strength * load_one(_FP, load_i64(args, _BIAS), place)
        inverse = _softmax(scratch, head * stride, first_block * block, own_start, end, last, softcap, mask, boost)
        store_one(_FP, inverses, head, inverse)
    _mix_values(kind, values, table, kv_heads * block * padded, scratch, stride, heads, start, last, block, padded, out)
    for head in range(heads):
        row = first_row + head // group
        target = (row * all_heads + kv_head * group + head % group) * width
        inverse = load_one(_FP, inverses, head)
        for i in range(width):
            store_one(kind, load_i64(args, _OUTPUT), target + i, inverse * load_one(_FP, out, head * padded + i))


@inner
def _work(kind, size, args):
    """Take (tile, key-value head) items until none is left."""
    kv_heads, padded = load_i64(args, _KV_HEADS), load_i64(args, _PADDED)
    heads = load_i64(args, _TILE_ROWS) * (load_i64(args, _HEADS) // kv_heads)
    items = load_i64(args, _TILES) * kv_heads
    worker = openmp.take(args + 8 * _WORKER)
    # Per worker: the scaled queries of a tile, its outputs with their divisors, and the scores.
    per_worker = heads * (2 * padded + LANES + load_i64(args, _SCRATCH_STRIDE))
    queries = load_i64(args, _SCRATCH) + worker * 4 * per_worker
    out = queries + 4 * heads * padded
    scratch = out + 4 * heads * (padded + LANES)
    starts = load_i64(args, _TILE_STARTS)
    while True:
        item = openmp.take(args + 8 * _NEXT)
        if item >= items:
            return
        tile = item // kv_heads
        first = load_i32(starts, tile)
        _tile(kind, size, args, first, load_i32(starts, tile + 1) - first, item % kv_heads, queries, out, scratch)


@openmp.worker(torch.bfloat16)
def _worker_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


@openmp.worker(torch.float32)
def _worker_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


_WORKERS = {torch.bfloat16: _worker_bf16, torch.float32: _worker_fp32}


TILE_ROWS = 4
"""Rows of one sequence that share their loads of keys and values."""


def _whole_lanes(mask: Tensor) -> Tensor:
    """The mask itself if a vector of bytes may be read wherever a row holds one, else a padded copy."""
    extra = -mask.shape[1] % LANES
    return torch.nn.functional.pad(mask, (0, extra)) if extra else mask


def paged_decode_cpu(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    row_sequence: Tensor,
    lengths: Tensor,
    longest: int,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    tiles: Tensor | None = None,
    instruction: InstructionBias | None = None,
) -> Tensor:
    """See :func:`ift_kernels.paged_decode.paged_decode`."""
    rows, heads, width = query.shape
    if query.stride()[1:] != (width, 1):
        query = query.contiguous()
    kv_heads, block, padded = key_cache.shape[1], key_cache.shape[3], value_cache.shape[3]
    output = torch.empty((rows, heads, width), dtype=query.dtype)
    starts = torch.arange(rows + 1, dtype=torch.int32) if tiles is None else tiles
    tile_rows = 1 if tiles is None or starts.shape[0] == rows + 1 else TILE_ROWS
    count = starts.shape[0] - 1
    threads = min(torch.get_num_threads(), count * kv_heads)
    stride = -(-longest // block) * block + LANES
    tile_heads = tile_rows * (heads // kv_heads)
    scratch = torch.empty(threads * tile_heads * (2 * padded + LANES + stride), dtype=torch.float32)
    arguments = np.empty(_SLOTS, dtype=np.int64)
    arguments[:_SCALE] = (
        0,
        0,
        query.data_ptr(),
        key_cache.data_ptr(),
        value_cache.data_ptr(),
        output.data_ptr(),
        block_tables.data_ptr(),
        row_sequence.data_ptr(),
        lengths.data_ptr(),
        scratch.data_ptr(),
        count,
        heads,
        kv_heads,
        width,
        block,
        padded,
        block_tables.stride(0),
        stride,
        window,
    )
    floats = arguments.view(np.float32)
    floats[2 * _SCALE] = scale
    floats[2 * _SOFTCAP] = softcap
    arguments[_QUERY_STRIDE:_MASK] = (query.stride(0), starts.data_ptr(), tile_rows)
    arguments[_MASK:] = 0
    if instruction is not None:
        mask = _whole_lanes(instruction.mask)
        arguments[_MASK:] = (
            mask.data_ptr(),
            mask.stride(0),
            instruction.bias.data_ptr(),
            instruction.adapter.data_ptr(),
            instruction.strength.data_ptr(),
        )
    openmp.run(openmp.entry_point(), openmp.compiled(_WORKERS[query.dtype]), arguments, threads)
    return output
