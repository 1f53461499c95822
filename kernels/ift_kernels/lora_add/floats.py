"""Both halves of LoRA for one row and for four, in float32 vectors. Factors may be bf16 or float32."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np

from ift_kernels.cpu_simd.inner import inlined
from ift_kernels.cpu_simd.simd import LANES, add, fma, load, load_one, mul, splat, store, store_one, sum_lanes, zero

_FP = np.float32(0)


@inlined
def _shrink_one(kind, x, factor, rank, width, shrunk):
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


@inlined
def _shrink_four(kind, x0, x1, x2, x3, factor, rank, width, shrunk, stride):
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


@inlined
def _accumulate(kind, y, column, scale, total):
    store(kind, y, column, add(load(kind, y, column), mul(splat(scale), total)))


@inlined
def _expand_one(kind, factor, rank, columns, shrunk, scale, y):
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


@inlined
def _expand_four(kind, factor, rank, columns, shrunk, stride, scale, y0, y1, y2, y3):
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


def one_row(kind, x, factor_a, factor_b, rank, width, columns, shrunk, stride, scale, y, fresh):
    """Add one row's change. kind: of the factors and rows; shrunk: a scratch for ``rank`` floats; fresh: unused."""
    _shrink_one(kind, x, factor_a, rank, width, shrunk)
    _expand_one(kind, factor_b, rank, columns, shrunk, scale, y)


def four_rows(
    kind, x0, x1, x2, x3, factor_a, factor_b, rank, width, columns, shrunk, stride, scale, y0, y1, y2, y3, fresh
):
    """The same for four rows, whose shrunk values are ``stride`` apart."""
    _shrink_four(kind, x0, x1, x2, x3, factor_a, rank, width, shrunk, stride)
    _expand_four(kind, factor_b, rank, columns, shrunk, stride, scale, y0, y1, y2, y3)
