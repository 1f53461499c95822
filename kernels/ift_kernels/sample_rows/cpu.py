"""Sampling on the CPU, one row of logits a work item.

Truncation needs no sort: the threshold that top-k or top-p implies is found by bisection over the ordered
integer images of the float32 values, with one vector pass over the row a step.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ift_kernels.cpu_simd import openmp, simd
from ift_kernels.cpu_simd.functions import exp, log, uniform
from ift_kernels.cpu_simd.simd import (
    LANES,
    add,
    choose_at_least,
    fma,
    keep_at_least,
    load,
    load_i32,
    load_i64,
    load_one,
    max_lanes,
    maximum,
    mul,
    ordered_value,
    splat,
    store,
    store_i32,
    store_one,
    sub,
    sum_lanes,
    zero,
)
from ift_kernels.sample_rows.api import TOP, RowParameters, SampledRows

_NEXT, _WORKER, _LOGITS, _SCRATCH, _TOKENS, _STATISTICS, _TOP_IDS, _TOP_VALUES, _ROWS, _SIZE, _PADDED = range(11)
_TEMPERATURE, _TOP_P, _MIN_P, _TOP_K, _SEEDS, _STEPS, _TARGETS, _STRIDE = range(11, 19)
_OFFSETS, _IDS, _GENERATED, _BIAS, _REPETITION, _PRESENCE, _FREQUENCY, _SLOTS = range(19, 27)
_NONE = np.float32(-np.inf)
_SMALLEST = np.float32(1.17549435e-38)
_LARGEST = np.float32(3.4028234e38)
_FAR = np.float32(2.0**100)
_FP = np.float32(0)


@njit(inline="always")
def _copy_row(kind, source, target, size, padded):
    """Copy a row of logits to float32, padded with -inf; returns its maximum, NaN if it has no distribution."""
    best, odd = splat(_NONE), zero()
    whole = size // LANES * LANES
    for i in range(0, whole, LANES):
        x = load(kind, source, i)
        store(_FP, target, i, x)
        best = maximum(best, x)
        odd = fma(x, zero(), odd)
    top = max_lanes(best)
    for i in range(whole, padded):
        x = load_one(kind, source, i) if i < size else _NONE
        store_one(_FP, target, i, x)
        top = max(top, x)
    if sum_lanes(odd) != 0.0 or whole < size or not np.isfinite(top):
        for i in range(size):
            x = load_one(_FP, target, i)
            if np.isnan(x) or x == np.inf:
                return np.float32(np.nan)
        if top == _NONE:
            return np.float32(np.nan)
    return top


@njit
def _say_nothing(args, row):
    """A row without a distribution: a token that exists, statistics that are NaN, no likeliest tokens."""
    store_i32(load_i64(args, _TOKENS), row, max(load_i32(load_i64(args, _TARGETS), row), 0))
    for i in range(5):
        store_one(_FP, load_i64(args, _STATISTICS) + 4 * row * 5, i, np.float32(np.nan))
    for i in range(TOP):
        store_i32(load_i64(args, _TOP_IDS) + 4 * row * TOP, i, -1)
        store_one(_FP, load_i64(args, _TOP_VALUES) + 4 * row * TOP, i, _NONE)


@njit
def _collect_top(row, padded, ids, values):
    """Insertion into a sorted list of the largest values; equal values keep the order of their ids."""
    for i in range(TOP):
        store_i32(ids, i, -1)
        store_one(_FP, values, i, _NONE)
    threshold = _NONE
    for i in range(0, padded, LANES):
        if max_lanes(load(_FP, row, i)) <= threshold:
            continue
        for j in range(i, i + LANES):
            x = load_one(_FP, row, j)
            if x <= threshold:
                continue
            place = TOP - 1
            while place > 0 and load_one(_FP, values, place - 1) < x:
                store_one(_FP, values, place, load_one(_FP, values, place - 1))
                store_i32(ids, place, load_i32(ids, place - 1))
                place -= 1
            store_one(_FP, values, place, x)
            store_i32(ids, place, j)
            threshold = load_one(_FP, values, TOP - 1)


@njit
def _argmax(row, padded):
    """First index of the largest value."""
    best = splat(_NONE)
    for i in range(0, padded, LANES):
        best = maximum(best, load(_FP, row, i))
    top = max_lanes(best)
    for i in range(0, padded, LANES):
        if max_lanes(load(_FP, row, i)) == top:
            for j in range(i, i + LANES):
                if load_one(_FP, row, j) == top:
                    return j
    return 0


@njit
def _order(value):
    """An int64 that orders like the float32 ``value``."""
    bits = np.int64(np.float32(value).view(np.int32))
    return bits if bits >= 0 else np.int64(-2147483648) - bits


@njit
def _mass_at_least(weights, row, padded, threshold):
    """Sum of the weights whose value is at least the threshold."""
    total = zero()
    limit = splat(threshold)
    for i in range(0, padded, LANES):
        total = add(total, keep_at_least(load(_FP, weights, i), load(_FP, row, i), limit))
    return sum_lanes(total)


@njit
def _count_threshold(ones, row, padded, top, wanted):
    """Largest threshold that keeps at least ``wanted`` values."""
    low, high = _order(np.float32(-3.4e38)), _order(top)
    while low < high:
        middle = (low + high + 1) // 2
        if _mass_at_least(ones, row, padded, ordered_value(middle)) >= wanted:
            low = middle
        else:
            high = middle - 1
    return ordered_value(low)


@njit
def _mass_threshold(weights, row, padded, top, wanted):
    """Smallest threshold such that the mass strictly above it is less than ``wanted``."""
    low, high = _order(np.float32(-3.4e38)), _order(top)
    while low < high:
        middle = (low + high) // 2
        if _mass_at_least(weights, row, padded, ordered_value(middle + 1)) < wanted:
            high = middle
        else:
            low = middle + 1
    return ordered_value(low)


@njit
def _adjust(args, row, scratch):
    """Bias and penalties, in place."""
    offsets = load_i64(args, _OFFSETS)
    if offsets == 0:
        return False
    first, end = load_i32(offsets, row), load_i32(offsets, row + 1)
    repetition = load_one(_FP, load_i64(args, _REPETITION), row)
    presence = load_one(_FP, load_i64(args, _PRESENCE), row)
    frequency = load_one(_FP, load_i64(args, _FREQUENCY), row)
    for entry in range(first, end):
        token = load_i32(load_i64(args, _IDS), entry)
        generated = load_i32(load_i64(args, _GENERATED), entry)
        x = load_one(_FP, scratch, token) + load_one(_FP, load_i64(args, _BIAS), entry)
        if generated >= 0:
            x = x / repetition if x > 0 else x * repetition
            x -= frequency * np.float32(generated)
            if generated > 0:
                x -= presence
        store_one(_FP, scratch, token, min(x, _LARGEST))
    return end > first


@njit
def _largest(row, padded):
    best = splat(_NONE)
    for i in range(0, padded, LANES):
        best = maximum(best, load(_FP, row, i))
    return max_lanes(best)


@njit
def _draw(args, row, scratch, weights, padded, largest):
    """Gumbel-max over the truncated, tempered row, whose largest logit is known."""
    factor = np.float32(1.0) / max(load_one(_FP, load_i64(args, _TEMPERATURE), row), _SMALLEST)
    # Far out, the largest logit becomes the zero of the row, so that nothing overflows but what is never drawn.
    origin = largest if not abs(largest) * factor < _FAR else np.float32(0.0)
    inverse, zero_point = splat(factor), splat(origin)
    for i in range(0, padded, LANES):
        store(_FP, scratch, i, mul(sub(load(_FP, scratch, i), zero_point), inverse))
    top = (largest - origin) * factor
    threshold = np.float32(-3.4e38)
    top_k = load_i32(load_i64(args, _TOP_K), row)
    top_p = load_one(_FP, load_i64(args, _TOP_P), row)
    min_p = load_one(_FP, load_i64(args, _MIN_P), row)
    if 0 < top_k < load_i64(args, _SIZE):
        for i in range(0, padded, LANES):
            store(_FP, weights, i, splat(np.float32(1.0)))
        threshold = _count_threshold(weights, scratch, padded, top, np.float32(top_k))
    if top_p < 1.0:
        limit = splat(threshold)
        total = zero()
        for i in range(0, padded, LANES):
            z = load(_FP, scratch, i)
            w = keep_at_least(exp(sub(z, splat(top))), z, limit)
            store(_FP, weights, i, w)
            total = add(total, w)
        threshold = max(threshold, _mass_threshold(weights, scratch, padded, top, top_p * sum_lanes(total)))
    if min_p > 0.0:
        threshold = max(threshold, top + np.float32(np.log(min_p)))
    seed = load_i64(load_i64(args, _SEEDS), row)
    step = load_i32(load_i64(args, _STEPS), row)
    limit = splat(threshold)
    for i in range(0, padded, LANES):
        z = load(_FP, scratch, i)
        if max_lanes(z) < threshold:
            store(_FP, weights, i, splat(_NONE))
            continue
        u = uniform(seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, i, step)
        gumbel = sub(zero(), log(sub(zero(), log(u))))
        store(_FP, weights, i, choose_at_least(add(z, gumbel), z, limit, _NONE))
    return _argmax(weights, padded)


@njit
def _row(kind, size, args, row, scratch, weights):
    count, padded = load_i64(args, _SIZE), load_i64(args, _PADDED)
    source = load_i64(args, _LOGITS) + size * row * load_i64(args, _STRIDE)
    largest = _copy_row(kind, source, scratch, count, padded)
    if np.isnan(largest):
        _say_nothing(args, row)
        return
    top = splat(largest)
    total, moment = zero(), zero()
    floor = splat(np.float32(-100.0))
    for i in range(0, padded, LANES):
        shifted = maximum(sub(load(_FP, scratch, i), top), floor)
        e = exp(shifted)
        total = add(total, e)
        moment = fma(e, shifted, moment)
    mass = sum_lanes(total)
    log_mass = np.float32(np.log(mass))
    ids = load_i64(args, _TOP_IDS) + 4 * row * TOP
    values = load_i64(args, _TOP_VALUES) + 4 * row * TOP
    _collect_top(scratch, padded, ids, values)
    best = load_one(_FP, values, 0)
    mean, found = np.float32(0.0), 0
    for i in range(TOP):
        value = load_one(_FP, values, i) - best - log_mass
        store_one(_FP, values, i, value)
        if load_i32(ids, i) >= 0:
            mean += value * np.float32(2.0**-5)  # exact, and twenty of the lowest do not overflow
            found += 1
    token = load_i32(load_i64(args, _TARGETS), row)
    if token >= 0:
        raw = load_one(_FP, scratch, token)
    else:
        adjusted = _adjust(args, row, scratch)
        if load_one(_FP, load_i64(args, _TEMPERATURE), row) == 0.0:
            token = _argmax(scratch, padded) if adjusted else load_i32(ids, 0)
        else:
            largest = _largest(scratch, padded) if adjusted else largest
            token = _draw(args, row, scratch, weights, padded, largest)
        raw = load_one(kind, source, token)
    store_i32(load_i64(args, _TOKENS), row, token)
    statistics = load_i64(args, _STATISTICS) + 4 * row * 5
    store_one(_FP, statistics, 0, raw - best - log_mass)
    store_one(_FP, statistics, 1, np.float32(np.exp(load_one(_FP, values, 0))))
    store_one(_FP, statistics, 2, np.float32(np.exp(load_one(_FP, values, 1))))
    store_one(_FP, statistics, 3, log_mass - sum_lanes(moment) / mass)
    store_one(_FP, statistics, 4, mean / (np.float32(max(found, 1)) * np.float32(2.0**-5)))


@njit
def _work(kind, size, args):
    rows, padded = load_i64(args, _ROWS), load_i64(args, _PADDED)
    scratch = load_i64(args, _SCRATCH) + openmp.take(args + 8 * _WORKER) * padded * 8
    while True:
        row = openmp.take(args + 8 * _NEXT)
        if row >= rows:
            return
        _row(kind, size, args, row, scratch, scratch + 4 * padded)


def _worker_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


def _worker_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


_WORKERS = {torch.bfloat16: _worker_bf16, torch.float32: _worker_fp32}


def sample_rows_cpu(logits: Tensor, parameters: RowParameters) -> SampledRows:
    """See :func:`ift_kernels.sample_rows.sample_rows`."""
    rows, size = logits.shape
    padded = -(-size // LANES) * LANES
    threads = max(1, min(torch.get_num_threads(), rows))
    scratch = torch.empty(threads * padded * 2, dtype=torch.float32)
    result = SampledRows(
        torch.empty(rows, dtype=torch.int32),
        torch.empty((rows, 5), dtype=torch.float32),
        torch.empty((rows, TOP), dtype=torch.int32),
        torch.empty((rows, TOP), dtype=torch.float32),
    )
    arguments = np.zeros(_SLOTS, dtype=np.int64)
    outputs = (result.tokens, result.statistics, result.top_ids, result.top_log_probs)
    inputs = (
        parameters.temperature,
        parameters.top_p,
        parameters.min_p,
        parameters.top_k,
        parameters.seeds,
        parameters.steps,
        parameters.targets,
    )
    arguments[_LOGITS:_ROWS] = (logits.data_ptr(), scratch.data_ptr(), *(t.data_ptr() for t in outputs))
    arguments[_ROWS:_TEMPERATURE] = (rows, size, padded)
    arguments[_TEMPERATURE:_STRIDE] = [t.data_ptr() for t in inputs]
    arguments[_STRIDE] = logits.stride(0)
    if (a := parameters.adjustments) is not None:
        tables = (a.offsets, a.token_ids, a.generated, a.bias, a.repetition, a.presence, a.frequency)
        arguments[_OFFSETS:_SLOTS] = [t.data_ptr() for t in tables]
    openmp.run(openmp.entry_point(), openmp.compiled(_WORKERS[logits.dtype]), arguments, threads)
    return result
