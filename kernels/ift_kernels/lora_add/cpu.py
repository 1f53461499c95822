"""Batched LoRA on the CPU: a work item is a tile of up to four rows of one adapter and a part of the output.

The tile's shrunk rows stay in a scratch of the worker, so one call does both halves. Four rows share each load of a
factor. Every sum runs in the same order whether a row stands alone or in a tile.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ift_kernels.host import openmp, simd
from ift_kernels.host.simd import (
    LANES,
    add,
    fma,
    load,
    load_i32,
    load_i64,
    load_one,
    mul,
    splat,
    store,
    store_one,
    sum_lanes,
    zero,
)
from ift_kernels.lora import LoraRows, LoraTable

TILE_ROWS = 4
_NEXT, _WORKER, _INPUT, _OUTPUT, _SCRATCH, _ORDER, _ADAPTERS, _STARTS, _COUNTS, _TILES = range(10)
_A, _B, _RANKS, _SCALES, _COLUMNS, _PARTS, _WIDTH, _IN_STRIDE, _OUT_STRIDE, _MAX_RANK, _SLOTS = range(10, 21)
_FP = np.float32(0)


@njit(inline="always")
def _dots_of_one(kind, x, factor, rank, width, shrunk):
    """``shrunk[r] = A[r] . x``, four ranks at a time; past the end the last one is computed again."""
    for first in range(0, rank, 4):
        r1, r2, r3 = min(first + 1, rank - 1), min(first + 2, rank - 1), min(first + 3, rank - 1)
        s0, s1, s2, s3 = zero(), zero(), zero(), zero()
        for k in range(0, width, LANES):
            v = load(kind, x, k)
            s0 = fma(load(kind, factor, first * width + k), v, s0)
            s1 = fma(load(kind, factor, r1 * width + k), v, s1)
            s2 = fma(load(kind, factor, r2 * width + k), v, s2)
            s3 = fma(load(kind, factor, r3 * width + k), v, s3)
        store_one(_FP, shrunk, first, sum_lanes(s0))
        store_one(_FP, shrunk, r1, sum_lanes(s1))
        store_one(_FP, shrunk, r2, sum_lanes(s2))
        store_one(_FP, shrunk, r3, sum_lanes(s3))


@njit(inline="always")
def _dots_of_four(kind, x0, x1, x2, x3, factor, rank, width, shrunk, stride):
    """The same for four rows, two ranks at a time."""
    for first in range(0, rank, 2):
        other = min(first + 1, rank - 1)
        a0, a1, a2, a3, b0, b1, b2, b3 = zero(), zero(), zero(), zero(), zero(), zero(), zero(), zero()
        for k in range(0, width, LANES):
            fa, fb = load(kind, factor, first * width + k), load(kind, factor, other * width + k)
            v = load(kind, x0, k)
            a0, b0 = fma(fa, v, a0), fma(fb, v, b0)
            v = load(kind, x1, k)
            a1, b1 = fma(fa, v, a1), fma(fb, v, b1)
            v = load(kind, x2, k)
            a2, b2 = fma(fa, v, a2), fma(fb, v, b2)
            v = load(kind, x3, k)
            a3, b3 = fma(fa, v, a3), fma(fb, v, b3)
        store_one(_FP, shrunk, first, sum_lanes(a0))
        store_one(_FP, shrunk, stride + first, sum_lanes(a1))
        store_one(_FP, shrunk, 2 * stride + first, sum_lanes(a2))
        store_one(_FP, shrunk, 3 * stride + first, sum_lanes(a3))
        store_one(_FP, shrunk, other, sum_lanes(b0))
        store_one(_FP, shrunk, stride + other, sum_lanes(b1))
        store_one(_FP, shrunk, 2 * stride + other, sum_lanes(b2))
        store_one(_FP, shrunk, 3 * stride + other, sum_lanes(b3))


@njit(inline="always")
def _accumulate(kind, y, column, scale, total):
    store(kind, y, column, add(load(kind, y, column), mul(splat(scale), total)))


@njit(inline="always")
def _spread_one(kind, factor, rank, columns, shrunk, scale, y):
    """``y += scale sum_r shrunk[r] B^T[r]`` for one row, 64 columns at a time."""
    column = 0
    while column + 4 * LANES <= columns:
        s0, s1, s2, s3 = zero(), zero(), zero(), zero()
        for r in range(rank):
            t = splat(load_one(_FP, shrunk, r))
            place = r * columns + column
            s0 = fma(t, load(kind, factor, place), s0)
            s1 = fma(t, load(kind, factor, place + LANES), s1)
            s2 = fma(t, load(kind, factor, place + 2 * LANES), s2)
            s3 = fma(t, load(kind, factor, place + 3 * LANES), s3)
        _accumulate(kind, y, column, scale, s0)
        _accumulate(kind, y, column + LANES, scale, s1)
        _accumulate(kind, y, column + 2 * LANES, scale, s2)
        _accumulate(kind, y, column + 3 * LANES, scale, s3)
        column += 4 * LANES
    while column < columns:
        s0 = zero()
        for r in range(rank):
            s0 = fma(splat(load_one(_FP, shrunk, r)), load(kind, factor, r * columns + column), s0)
        _accumulate(kind, y, column, scale, s0)
        column += LANES


@njit(inline="always")
def _spread_four(kind, factor, rank, columns, shrunk, stride, scale, y0, y1, y2, y3):
    """The same for four rows, 32 columns at a time."""
    column = 0
    while column + 2 * LANES <= columns:
        a0, a1, a2, a3, b0, b1, b2, b3 = zero(), zero(), zero(), zero(), zero(), zero(), zero(), zero()
        for r in range(rank):
            fa = load(kind, factor, r * columns + column)
            fb = load(kind, factor, r * columns + column + LANES)
            t = splat(load_one(_FP, shrunk, r))
            a0, b0 = fma(t, fa, a0), fma(t, fb, b0)
            t = splat(load_one(_FP, shrunk, stride + r))
            a1, b1 = fma(t, fa, a1), fma(t, fb, b1)
            t = splat(load_one(_FP, shrunk, 2 * stride + r))
            a2, b2 = fma(t, fa, a2), fma(t, fb, b2)
            t = splat(load_one(_FP, shrunk, 3 * stride + r))
            a3, b3 = fma(t, fa, a3), fma(t, fb, b3)
        _accumulate(kind, y0, column, scale, a0)
        _accumulate(kind, y1, column, scale, a1)
        _accumulate(kind, y2, column, scale, a2)
        _accumulate(kind, y3, column, scale, a3)
        _accumulate(kind, y0, column + LANES, scale, b0)
        _accumulate(kind, y1, column + LANES, scale, b1)
        _accumulate(kind, y2, column + LANES, scale, b2)
        _accumulate(kind, y3, column + LANES, scale, b3)
        column += 2 * LANES
    while column < columns:
        a0, a1, a2, a3 = zero(), zero(), zero(), zero()
        for r in range(rank):
            fa = load(kind, factor, r * columns + column)
            a0 = fma(splat(load_one(_FP, shrunk, r)), fa, a0)
            a1 = fma(splat(load_one(_FP, shrunk, stride + r)), fa, a1)
            a2 = fma(splat(load_one(_FP, shrunk, 2 * stride + r)), fa, a2)
            a3 = fma(splat(load_one(_FP, shrunk, 3 * stride + r)), fa, a3)
        _accumulate(kind, y0, column, scale, a0)
        _accumulate(kind, y1, column, scale, a1)
        _accumulate(kind, y2, column, scale, a2)
        _accumulate(kind, y3, column, scale, a3)
        column += LANES


@njit
def _tile(kind, size, args, tile, part, shrunk):
    """One tile of rows and one part of the output."""
    entry = load_i32(load_i64(args, _ADAPTERS), tile) * load_i64(args, _PARTS) + part
    rank = load_i32(load_i64(args, _RANKS), entry)
    count = load_i32(load_i64(args, _COUNTS), tile)
    if rank == 0 or count == 0:
        return
    width, stride = load_i64(args, _WIDTH), load_i64(args, _MAX_RANK)
    factor_a, factor_b = load_i64(load_i64(args, _A), entry), load_i64(load_i64(args, _B), entry)
    scale = load_one(_FP, load_i64(args, _SCALES), entry)
    column = load_i64(load_i64(args, _COLUMNS), part)
    columns = load_i64(load_i64(args, _COLUMNS), part + 1) - column
    order = load_i64(args, _ORDER) + 4 * load_i32(load_i64(args, _STARTS), tile)
    x_stride, y_stride = size * load_i64(args, _IN_STRIDE), size * load_i64(args, _OUT_STRIDE)
    x, y = load_i64(args, _INPUT), load_i64(args, _OUTPUT) + size * column
    if count < 4:
        for i in range(count):
            row = load_i32(order, i)
            _dots_of_one(kind, x + row * x_stride, factor_a, rank, width, shrunk)
            _spread_one(kind, factor_b, rank, columns, shrunk, scale, y + row * y_stride)
        return
    r0, r1, r2, r3 = load_i32(order, 0), load_i32(order, 1), load_i32(order, 2), load_i32(order, 3)
    _dots_of_four(
        kind, x + r0 * x_stride, x + r1 * x_stride, x + r2 * x_stride, x + r3 * x_stride, factor_a, rank, width,
        shrunk, stride,
    )  # fmt: skip
    _spread_four(
        kind, factor_b, rank, columns, shrunk, stride, scale,
        y + r0 * y_stride, y + r1 * y_stride, y + r2 * y_stride, y + r3 * y_stride,
    )  # fmt: skip


@njit
def _work(kind, size, args):
    """Take (tile, part) items until none is left."""
    parts = load_i64(args, _PARTS)
    items = load_i64(args, _TILES) * parts
    shrunk = load_i64(args, _SCRATCH) + openmp.take(args + 8 * _WORKER) * 4 * 4 * load_i64(args, _MAX_RANK)
    while True:
        item = openmp.take(args + 8 * _NEXT)
        if item >= items:
            return
        _tile(kind, size, args, item // parts, item % parts, shrunk)


def _worker_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


def _worker_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


_WORKERS = {torch.bfloat16: _worker_bf16, torch.float32: _worker_fp32}


def lora_add_cpu(inputs: Tensor, table: LoraTable, rows: LoraRows, output: Tensor) -> None:
    """See :func:`ift_kernels.lora_add.lora_add`; tiles hold at most 4 rows."""
    tiles = rows.tile_adapter.shape[0]
    stride = table.padded_rank
    threads = min(torch.get_num_threads(), tiles * table.parts)
    scratch = torch.empty(threads * TILE_ROWS * stride, dtype=torch.float32)
    arguments = np.array(
        (
            0, 0, inputs.data_ptr(), output.data_ptr(), scratch.data_ptr(), rows.order.data_ptr(),
            rows.tile_adapter.data_ptr(), rows.tile_start.data_ptr(), rows.tile_count.data_ptr(), tiles,
            table.a_addresses.data_ptr(), table.b_addresses.data_ptr(), table.ranks.data_ptr(),
            table.scales.data_ptr(), table.bounds.data_ptr(), table.parts, inputs.shape[1], inputs.stride(0),
            output.stride(0), stride,
        ),
        dtype=np.int64,
    )  # fmt: skip
    openmp.run(openmp.entry_point(), openmp.compiled(_WORKERS[inputs.dtype]), arguments, threads)
