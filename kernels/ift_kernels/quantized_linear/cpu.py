"""Linear layers over 8- and 4-bit weights on the CPU: inputs are rounded to bytes, sums of a group are exact integers.

A work item is four panels of 16 outputs, for all rows. One row is bound by reading the panels; more go by tiles of
four, which share each load; while they compute, the panel that the thread takes next is read. Inputs of few rows are
rounded by every thread for itself, which spares a second launch.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ift_kernels.cpu_simd import integers, openmp, simd
from ift_kernels.cpu_simd.inner import inlined
from ift_kernels.cpu_simd.integers import (
    dot_bytes,
    dot_pairs,
    high_nibbles,
    load_bytes,
    load_half,
    low_nibbles,
    magnitude,
    splat_integer,
    splat_word,
    store_rounded,
    subtract,
    to_float,
    widen_pairs,
)
from ift_kernels.cpu_simd.simd import (
    FP32,
    LANES,
    add,
    fma,
    load,
    load_i32,
    load_i64,
    load_one,
    max_lanes,
    maximum,
    mul,
    prefetch,
    splat,
    store,
    store_i32,
    store_one,
    sum_lanes,
    zero,
)
from ift_kernels.quantized_linear.types import GROUP, INPUT_LIMIT, PANEL, ZERO_CODE, QuantizedLaunch, QuantizedWeight

_NEXT, _THREAD, _INPUT, _OUTPUT, _ROWS, _BIAS, _CODES, _FACTORS, _SUMS = range(9)
_PANELS, _WEIGHT, _SCALES, _MINIMUMS, _ZERO_CODE, _WIDTH, _SCRATCH, _SLOTS = range(9, 17)
_GROUP, _TILE = 4, 4
_STEPS = GROUP // 4
"""Loads of a group of eight bits."""
_FEW = 4
"""Rows up to which every thread rounds the inputs for itself."""
_AHEAD = 1024
"""Bytes by which a panel is asked for before it is read."""
_LINE = 64
"""Bytes that the processor reads at once."""
_LIMIT = np.float32(INPUT_LIMIT)
_SMALLEST = np.float32(1e-30)
"""Groups of inputs below it count as 0: their factor's reciprocal would not be finite."""


@inlined
def _round_row(kind, x, width, codes, factors, sums):
    """One row as signed bytes, with a factor and the sum of the bytes for each group. What is not finite stays so."""
    for index in range(width // GROUP):
        start = index * GROUP
        top, odd = zero(), zero()
        for k in range(start, start + GROUP, LANES):
            v = load(kind, x, k)
            top = maximum(top, magnitude(v))
            odd = fma(v, zero(), odd)
        largest = max_lanes(top)
        scale, factor = np.float32(0.0), np.float32(0.0)
        if largest > _SMALLEST:
            scale, factor = _LIMIT / largest, largest / _LIMIT
        total = 0
        for k in range(start, start + GROUP, LANES):
            total += store_rounded(codes, k, mul(load(kind, x, k), splat(scale)))
        store_one(FP32, factors, index, factor + sum_lanes(odd))
        store_i32(sums, index, total)


@inlined
def _group_of_one(bits, c, start, panel):
    """Sums of products over a group of inputs: one row, 16 outputs."""
    t = splat_integer(0)
    if bits == 8:
        for s in range(start, start + _STEPS):
            prefetch(panel + 64 * s + _AHEAD)
            t = dot_bytes(load_bytes(panel, 64 * s), splat_word(c, 4 * s), t)
        return t
    for b in range(start // 2, start // 2 + 4):
        prefetch(panel + 64 * b + _AHEAD)
        w = load_bytes(panel, 64 * b)
        t = dot_pairs(low_nibbles(w), splat_word(c, 8 * b), t)
        t = dot_pairs(high_nibbles(w), splat_word(c, 8 * b + 4), t)
    return widen_pairs(t)


@inlined
def _group_of_four(bits, c0, c1, c2, c3, start, panel, following, step):
    """The same for four rows. following, step: what is asked for meanwhile, so many bytes further with each load."""
    t0, t1, t2, t3 = splat_integer(0), splat_integer(0), splat_integer(0), splat_integer(0)
    if bits == 8:
        for s in range(start, start + _STEPS):
            prefetch(following + step * s)
            w = load_bytes(panel, 64 * s)
            t0 = dot_bytes(w, splat_word(c0, 4 * s), t0)
            t1 = dot_bytes(w, splat_word(c1, 4 * s), t1)
            t2 = dot_bytes(w, splat_word(c2, 4 * s), t2)
            t3 = dot_bytes(w, splat_word(c3, 4 * s), t3)
        return t0, t1, t2, t3
    for b in range(start // 2, start // 2 + 4):
        prefetch(following + step * b)
        w = load_bytes(panel, 64 * b)
        low, high = low_nibbles(w), high_nibbles(w)
        t0 = dot_pairs(high, splat_word(c0, 8 * b + 4), dot_pairs(low, splat_word(c0, 8 * b), t0))
        t1 = dot_pairs(high, splat_word(c1, 8 * b + 4), dot_pairs(low, splat_word(c1, 8 * b), t1))
        t2 = dot_pairs(high, splat_word(c2, 8 * b + 4), dot_pairs(low, splat_word(c2, 8 * b), t2))
        t3 = dot_pairs(high, splat_word(c3, 8 * b + 4), dot_pairs(low, splat_word(c3, 8 * b), t3))
    return widen_pairs(t0), widen_pairs(t1), widen_pairs(t2), widen_pairs(t3)


@inlined
def _add_group(bits, y, total, scales, minimums, zero_code, factors, sums, g):
    """One group's sums into a row's outputs: ``y + factor (scale (total - zero sum) + minimum sum)``.

    Of eight bits the zero is 0.
    """
    factor = load_one(FP32, factors, g)
    if bits != 8:
        total = subtract(total, splat_integer(zero_code * load_i32(sums, g)))
    y = fma(to_float(total), mul(load_half(scales, LANES * g), splat(factor)), y)
    if minimums != 0:
        y = fma(load_half(minimums, LANES * g), splat(factor * np.float32(load_i32(sums, g))), y)
    return y


@inlined
def _put(kind, output, column, bias, value):
    store(kind, output, column, add(value, load(FP32, bias, column)) if bias != 0 else value)


@inlined
def _multiply(bits, kind, size, args, codes, factors, sums, first, end, after):
    """Panels ``first .. end-1`` for all rows. after: the panel that this thread takes next."""
    rows, width = load_i64(args, _ROWS), load_i64(args, _WIDTH)
    groups = width // GROUP
    columns = LANES * load_i64(args, _PANELS)
    y, bias = load_i64(args, _OUTPUT), load_i64(args, _BIAS)
    weight, scales, minimums = load_i64(args, _WEIGHT), load_i64(args, _SCALES), load_i64(args, _MINIMUMS)
    code = load_i64(args, _ZERO_CODE)
    if rows == 1:
        for panel in range(first, end):
            p, s = weight + panel * 2 * bits * width, scales + 2 * LANES * groups * panel
            m = minimums + 2 * LANES * groups * panel if minimums != 0 else 0
            v = zero()
            for g in range(groups):
                t = _group_of_one(bits, codes, g * _STEPS, p)
                v = _add_group(bits, v, t, s, m, code, factors, sums, g)
            _put(kind, y, panel * LANES, bias, v)
        return
    tiles = (rows + _TILE - 1) // _TILE
    step = _LINE // tiles
    lines = bits * width // 32
    n = 4 * groups
    for panel in range(first, end):
        p, s = weight + panel * 2 * bits * width, scales + 2 * LANES * groups * panel
        m = minimums + 2 * LANES * groups * panel if minimums != 0 else 0
        next_panel = weight + (panel + 1 if panel + 1 < end else after) * 2 * bits * width
        column = panel * LANES
        for tile in range(tiles):
            r0 = tile * _TILE
            following = next_panel + tile * lines * step
            r1, r2, r3 = min(r0 + 1, rows - 1), min(r0 + 2, rows - 1), min(r0 + 3, rows - 1)
            c0, c1, c2, c3 = codes + r0 * width, codes + r1 * width, codes + r2 * width, codes + r3 * width
            f0, f1, f2, f3 = factors + r0 * n, factors + r1 * n, factors + r2 * n, factors + r3 * n
            u0, u1, u2, u3 = sums + r0 * n, sums + r1 * n, sums + r2 * n, sums + r3 * n
            v0, v1, v2, v3 = zero(), zero(), zero(), zero()
            for g in range(groups):
                t0, t1, t2, t3 = _group_of_four(bits, c0, c1, c2, c3, g * _STEPS, p, following, step)
                v0 = _add_group(bits, v0, t0, s, m, code, f0, u0, g)
                v1 = _add_group(bits, v1, t1, s, m, code, f1, u1, g)
                v2 = _add_group(bits, v2, t2, s, m, code, f2, u2, g)
                v3 = _add_group(bits, v3, t3, s, m, code, f3, u3, g)
            _put(kind, y + size * r0 * columns, column, bias, v0)
            _put(kind, y + size * r1 * columns, column, bias, v1)
            _put(kind, y + size * r2 * columns, column, bias, v2)
            _put(kind, y + size * r3 * columns, column, bias, v3)


@inlined
def _work(bits, kind, size, args):
    rows, width, panels = load_i64(args, _ROWS), load_i64(args, _WIDTH), load_i64(args, _PANELS)
    codes, factors, sums = load_i64(args, _CODES), load_i64(args, _FACTORS), load_i64(args, _SUMS)
    if rows <= _FEW:
        n = width // GROUP
        codes = load_i64(args, _SCRATCH) + openmp.take(args + 8 * _THREAD) * _FEW * (width + 8 * n)
        factors = codes + _FEW * width
        sums = factors + 4 * _FEW * n
        for row in range(rows):
            x = load_i64(args, _INPUT) + size * row * width
            _round_row(kind, x, width, codes + row * width, factors + 4 * row * n, sums + 4 * row * n)
    first = openmp.take(args + 8 * _NEXT) * _GROUP
    while first < panels:
        after = openmp.take(args + 8 * _NEXT) * _GROUP
        end = min(first + _GROUP, panels)
        _multiply(bits, kind, size, args, codes, factors, sums, first, end, min(after, panels - 1))
        first = after


@inlined
def _round(kind, size, args):
    rows, width = load_i64(args, _ROWS), load_i64(args, _WIDTH)
    codes, factors, sums = load_i64(args, _CODES), load_i64(args, _FACTORS), load_i64(args, _SUMS)
    n = 4 * (width // GROUP)
    while True:
        row = openmp.take(args + 8 * _NEXT)
        if row >= rows:
            return
        x = load_i64(args, _INPUT) + size * row * width
        _round_row(kind, x, width, codes + row * width, factors + row * n, sums + row * n)


@openmp.worker(torch.float32, integers.available)
def _multiply_8_fp32(data):
    _work(8, simd.FP32, 4, openmp.address_of(data))


@openmp.worker(torch.bfloat16, integers.available)
def _multiply_8_bf16(data):
    _work(8, simd.BF16, 2, openmp.address_of(data))


@openmp.worker(torch.float32, integers.available)
def _multiply_4_fp32(data):
    _work(4, simd.FP32, 4, openmp.address_of(data))


@openmp.worker(torch.bfloat16, integers.available)
def _multiply_4_bf16(data):
    _work(4, simd.BF16, 2, openmp.address_of(data))


@openmp.worker(torch.float32, integers.available)
def _round_fp32(data):
    _round(simd.FP32, 4, openmp.address_of(data))


@openmp.worker(torch.bfloat16, integers.available)
def _round_bf16(data):
    _round(simd.BF16, 2, openmp.address_of(data))


_MULTIPLY = {
    (8, torch.float32): _multiply_8_fp32,
    (8, torch.bfloat16): _multiply_8_bf16,
    (4, torch.float32): _multiply_4_fp32,
    (4, torch.bfloat16): _multiply_4_bf16,
}
_ROUND = {torch.float32: _round_fp32, torch.bfloat16: _round_bf16}


def _launch(weight: QuantizedWeight, dtype: torch.dtype) -> QuantizedLaunch:
    """What a weight's calls share: arguments, of which a call writes the first, workers, and the threads' memory."""
    outputs, width = weight.shape
    threads = min(torch.get_num_threads(), -(-outputs // (PANEL * _GROUP)))
    scratch = torch.empty(threads * _FEW * (width + 8 * (width // GROUP)), dtype=torch.uint8)
    minimums = weight.minimums
    arguments = np.zeros(_SLOTS, dtype=np.int64)
    arguments[_PANELS:] = (
        outputs // PANEL,
        weight.panels.data_ptr(),
        weight.scales.data_ptr(),
        0 if minimums is None else minimums.data_ptr(),
        ZERO_CODE if weight.bits == 4 and minimums is None else 0,
        width,
        scratch.data_ptr(),
    )
    multiply = openmp.compiled(_MULTIPLY[weight.bits, dtype])
    return QuantizedLaunch(dtype, arguments, multiply, outputs, threads, scratch)


def quantized_linear_cpu(inputs: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """See :func:`ift_kernels.quantized_linear.quantized_linear`. A weight is used from one thread at a time."""
    launch = weight.launch
    if launch is None or launch.dtype != inputs.dtype:
        launch = weight.launch = _launch(weight, inputs.dtype)
    rows, width = inputs.shape
    output = torch.empty((rows, launch.columns), dtype=launch.dtype)
    values = (0, 0, inputs.data_ptr(), output.data_ptr(), rows, 0 if bias is None else bias.data_ptr())
    gomp = openmp.entry_point()
    if rows > _FEW:
        groups = width // GROUP
        rounded = torch.empty(rows * (width + 8 * groups), dtype=torch.uint8)
        codes = rounded.data_ptr()
        factors = codes + rows * width
        launch.arguments[_CODES : _SUMS + 1] = codes, factors, factors + 4 * rows * groups
        openmp.start(gomp, openmp.compiled(_ROUND[launch.dtype]), launch.arguments, launch.threads, values)
    openmp.start(gomp, launch.multiply, launch.arguments, launch.threads, values)
    return output
