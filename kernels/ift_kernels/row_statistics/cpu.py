"""Statistics of rows on the CPU, one row of logits a work item."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ift_kernels.cpu_simd import openmp, simd
from ift_kernels.cpu_simd.functions import exp
from ift_kernels.cpu_simd.inner import inlined, inner
from ift_kernels.cpu_simd.simd import (
    LANES,
    add,
    fma,
    load,
    load_i32,
    load_i64,
    load_one,
    max_lanes,
    maximum,
    splat,
    store,
    store_i32,
    store_one,
    sub,
    sum_lanes,
    zero,
)
from ift_kernels.row_statistics.types import ENTROPY, LARGEST, LOG_MASS, MEAN_TOP, MEASURES, P1, P2, TOP, RowStatistics

_NEXT, _WORKER, _LOGITS, _SCRATCH, _MEASURES, _TOP_IDS, _TOP_VALUES, _ROWS, _SIZE, _PADDED, _STRIDE, SLOTS = range(12)
_NONE = np.float32(-np.inf)
_FP = np.float32(0)


@inlined
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


@inner
def _say_nothing(args, row):
    """A row without a distribution: measures that are NaN, no likeliest tokens."""
    for measure in range(MEASURES):
        store_one(_FP, load_i64(args, _MEASURES), measure * load_i64(args, _ROWS) + row, np.float32(np.nan))
    for i in range(TOP):
        store_i32(load_i64(args, _TOP_IDS) + 4 * row * TOP, i, -1)
        store_one(_FP, load_i64(args, _TOP_VALUES) + 4 * row * TOP, i, _NONE)


@inner
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


@inner
def measure_row(kind, size, args, row, scratch):
    """The statistics of one row, whose logits are in scratch afterwards, padded with -inf."""
    rows, padded = load_i64(args, _ROWS), load_i64(args, _PADDED)
    source = load_i64(args, _LOGITS) + size * row * load_i64(args, _STRIDE)
    largest = _copy_row(kind, source, scratch, load_i64(args, _SIZE), padded)
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
    measures = load_i64(args, _MEASURES) + 4 * row
    store_one(_FP, measures, LARGEST * rows, best)
    store_one(_FP, measures, LOG_MASS * rows, log_mass)
    store_one(_FP, measures, P1 * rows, np.float32(np.exp(load_one(_FP, values, 0))))
    store_one(_FP, measures, P2 * rows, np.float32(np.exp(load_one(_FP, values, 1))))
    store_one(_FP, measures, ENTROPY * rows, log_mass - sum_lanes(moment) / mass)
    store_one(_FP, measures, MEAN_TOP * rows, mean / (np.float32(max(found, 1)) * np.float32(2.0**-5)))


@inner
def _work(kind, size, args):
    scratch = load_i64(args, _SCRATCH) + openmp.take(args + 8 * _WORKER) * load_i64(args, _PADDED) * 4
    while True:
        row = openmp.take(args + 8 * _NEXT)
        if row >= load_i64(args, _ROWS):
            return
        measure_row(kind, size, args, row, scratch)


@openmp.worker(torch.bfloat16)
def _worker_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


@openmp.worker(torch.float32)
def _worker_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


_WORKERS = {torch.bfloat16: _worker_bf16, torch.float32: _worker_fp32}


def empty_statistics(rows: int) -> RowStatistics:
    """Memory for those of so many rows."""
    return RowStatistics(
        torch.empty((MEASURES, rows), dtype=torch.float32),
        torch.empty((rows, TOP), dtype=torch.int32),
        torch.empty((rows, TOP), dtype=torch.float32),
    )


def fill_arguments(
    arguments: NDArray[np.int64], logits: Tensor, scratch: Tensor, padded: int, result: RowStatistics
) -> None:
    """What ``measure_row`` reads, in the first ``SLOTS`` entries. ``padded``: floats of a row in scratch."""
    outputs = (result.measures, result.top_ids, result.top_log_probs)
    arguments[_LOGITS:_ROWS] = (logits.data_ptr(), scratch.data_ptr(), *(t.data_ptr() for t in outputs))
    arguments[_ROWS:SLOTS] = (*logits.shape, padded, logits.stride(0))


def row_statistics_cpu(logits: Tensor) -> RowStatistics:
    """See :func:`ift_kernels.row_statistics.row_statistics`. Rows may be strided."""
    rows, size = logits.shape
    padded = -(-size // LANES) * LANES
    threads = max(1, min(torch.get_num_threads(), rows))
    scratch = torch.empty(threads * padded, dtype=torch.float32)
    result = empty_statistics(rows)
    arguments = np.zeros(SLOTS, dtype=np.int64)
    fill_arguments(arguments, logits, scratch, padded, result)
    openmp.run(openmp.entry_point(), openmp.compiled(_WORKERS[logits.dtype]), arguments, threads)
    return result
