"""Paged decode attention on the CPU: one work item per row and key-value head.

Keys are stored transposed in a block, ``[width, block_size]``, so that 16 keys fill a vector and scores
need no horizontal sums. Scores of one item stay in a scratch row; a head group shares each key load.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import torch
from numba import cfunc, njit, types
from torch import Tensor

from ift_kernels.host import openmp, simd
from ift_kernels.host.simd import LANES, add, exp, fma, keep_lanes, load, load_i32, load_i64, load_one, max_lanes
from ift_kernels.host.simd import maximum, mul, splat, store, store_one, sub, sum_lanes, tanh, zero

# Slots of the argument block. The two counters are bumped by the workers.
_NEXT, _WORKER, _QUERY, _KEYS, _VALUES, _OUTPUT, _TABLES, _SEQUENCE, _LENGTHS, _SCRATCH = range(10)
_ROWS, _HEADS, _KV_HEADS, _WIDTH, _BLOCK, _PADDED, _TABLE_STRIDE, _SCRATCH_STRIDE, _WINDOW = range(10, 19)
_SCALE, _SOFTCAP, _QUERY_STRIDE, _SLOTS = 19, 20, 21, 22


@njit(inline="always")
def _scores_of_block(kind, keys, query, group, width, block, scratch, stride, position):
    """Scores of ``block`` keys for ``group`` heads, three heads sharing each key load."""
    zero_kind = np.float32(0)
    for lane in range(0, block, LANES):
        head = 0
        while head + 3 <= group:
            s0, s1, s2 = zero(), zero(), zero()
            q0 = query + head * width * 4
            q1 = q0 + width * 4
            q2 = q1 + width * 4
            for d in range(width):
                k = load(kind, keys, d * block + lane)
                s0 = fma(splat(load_one(zero_kind, q0, d)), k, s0)
                s1 = fma(splat(load_one(zero_kind, q1, d)), k, s1)
                s2 = fma(splat(load_one(zero_kind, q2, d)), k, s2)
            store(zero_kind, scratch, (head + 0) * stride + position + lane, s0)
            store(zero_kind, scratch, (head + 1) * stride + position + lane, s1)
            store(zero_kind, scratch, (head + 2) * stride + position + lane, s2)
            head += 3
        while head < group:
            s0, s1 = zero(), zero()
            q0 = query + head * width * 4
            for d in range(0, width - 1, 2):
                s0 = fma(splat(load_one(zero_kind, q0, d)), load(kind, keys, d * block + lane), s0)
                s1 = fma(splat(load_one(zero_kind, q0, d + 1)), load(kind, keys, (d + 1) * block + lane), s1)
            if width % 2:
                d = width - 1
                s0 = fma(splat(load_one(zero_kind, q0, d)), load(kind, keys, d * block + lane), s0)
            store(zero_kind, scratch, head * stride + position + lane, add(s0, s1))
            head += 1


@njit(inline="always")
def _softmax(scratch, offset, first, start, end, softcap):
    """Turn scores ``[first, end)`` into probabilities in place; lanes before ``start`` become 0."""
    kind = np.float32(0)
    low = np.float32(-np.inf)
    best = splat(low)
    for position in range(first, end, LANES):
        s = load(kind, scratch, offset + position)
        if softcap > 0.0:
            s = mul(splat(softcap), tanh(mul(splat(np.float32(1.0) / softcap), s)))
        s = keep_lanes(s, start - position, end - position, low)
        store(kind, scratch, offset + position, s)
        best = maximum(best, s)
    top = splat(max_lanes(best))
    total = zero()
    for position in range(first, end, LANES):
        p = exp(sub(load(kind, scratch, offset + position), top))
        store(kind, scratch, offset + position, p)
        total = add(total, p)
    return np.float32(1.0) / sum_lanes(total)


@njit(inline="always")
def _mix_values(kind, args, item_values, table, scratch, offset, start, end, inverse, width, block, padded, out):
    """Write sum_j p_j v_j / sum_j p_j for one head, 64 columns of the values at a time."""
    fp = np.float32(0)
    kv_stride = load_i64(args, _KV_HEADS) * block * padded
    column = 0
    while column < padded:
        wide = padded - column >= 64
        a0, a1, a2, a3 = zero(), zero(), zero(), zero()
        position = start
        while position < end:
            index = position // block
            stop = min(end, (index + 1) * block)
            base = load_i32(table, index) * kv_stride + column
            for j in range(position, stop):
                p = splat(load_one(fp, scratch, offset + j))
                row = base + (j - index * block) * padded
                a0 = fma(p, load(kind, item_values, row), a0)
                if wide:
                    a1 = fma(p, load(kind, item_values, row + 16), a1)
                    a2 = fma(p, load(kind, item_values, row + 32), a2)
                    a3 = fma(p, load(kind, item_values, row + 48), a3)
            position = stop
        scale = splat(inverse)
        store(fp, out, column, mul(a0, scale))
        if wide:
            store(fp, out, column + 16, mul(a1, scale))
            store(fp, out, column + 32, mul(a2, scale))
            store(fp, out, column + 48, mul(a3, scale))
            column += 64
        else:
            column += 16


@njit
def _work(kind, size, args):
    """Take (row, key-value head) items until none is left."""
    fp = np.float32(0)
    heads, kv_heads = load_i64(args, _HEADS), load_i64(args, _KV_HEADS)
    width, block, padded = load_i64(args, _WIDTH), load_i64(args, _BLOCK), load_i64(args, _PADDED)
    group = heads // kv_heads
    stride = load_i64(args, _SCRATCH_STRIDE)
    window = load_i64(args, _WINDOW)
    scale = load_one(fp, args, _SCALE * 2)
    softcap = load_one(fp, args, _SOFTCAP * 2)
    items = load_i64(args, _ROWS) * kv_heads
    worker = openmp.take(args + 8 * _WORKER)
    # Per worker: the scaled query of a head group, one output row, and the scores.
    query = load_i64(args, _SCRATCH) + worker * 4 * ((group + 1) * (padded + 16) + group * stride)
    out = query + 4 * group * (padded + 16)
    scratch = out + 4 * (padded + 16)
    keys_stride = kv_heads * width * block
    while True:
        item = openmp.take(args + 8 * _NEXT)
        if item >= items:
            return
        row = item // kv_heads
        kv_head = item % kv_heads
        end = load_i32(load_i64(args, _LENGTHS), row)
        start = max(0, end - window) if window > 0 else 0
        sequence = load_i32(load_i64(args, _SEQUENCE), row)
        table = load_i64(args, _TABLES) + 4 * sequence * load_i64(args, _TABLE_STRIDE)
        source = row * load_i64(args, _QUERY_STRIDE) + kv_head * group * width
        for i in range(group * width):
            store_one(fp, query, i, scale * load_one(kind, load_i64(args, _QUERY), source + i))
        first_block = start // block
        for index in range(first_block, (end + block - 1) // block):
            keys = load_i64(args, _KEYS) + size * (load_i32(table, index) * keys_stride + kv_head * width * block)
            _scores_of_block(kind, keys, query, group, width, block, scratch, stride, index * block)
        values = load_i64(args, _VALUES) + size * kv_head * block * padded
        for head in range(group):
            inverse = _softmax(scratch, head * stride, first_block * block, start, end, softcap)
            _mix_values(
                kind, args, values, table, scratch, head * stride, start, end, inverse, width, block, padded, out
            )
            target = (row * heads + kv_head * group + head) * width
            for i in range(width):
                store_one(kind, load_i64(args, _OUTPUT), target + i, load_one(fp, out, i))


@cfunc(types.void(types.voidptr), cache=True)
def _worker_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


@cfunc(types.void(types.voidptr), cache=True)
def _worker_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


_WORKERS = {torch.bfloat16: _worker_bf16.address, torch.float32: _worker_fp32.address}


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
) -> Tensor:
    """See :func:`ift_kernels.paged_decode.paged_decode`."""
    rows, heads, width = query.shape
    if query.stride()[1:] != (width, 1):
        query = query.contiguous()
    kv_heads, block, padded = key_cache.shape[1], key_cache.shape[3], value_cache.shape[3]
    output = torch.empty((rows, heads, width), dtype=query.dtype)
    items = rows * kv_heads
    threads = min(torch.get_num_threads(), items)
    stride = -(-longest // block) * block + LANES
    group = heads // kv_heads
    scratch = torch.empty(threads * ((group + 1) * (padded + LANES) + group * stride), dtype=torch.float32)
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
        rows,
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
    arguments[_QUERY_STRIDE] = query.stride(0)
    openmp.run(openmp.entry_point(), _WORKERS[query.dtype], arguments, threads)
    return output
