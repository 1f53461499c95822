"""The gated addition on the CPU, a row a work item.

Whatever a row needs of its gate stands in a record of the batch: the addresses of the first layer's factors and terms,
whose distances between layers follow from their shapes. So a layer's launch is four numbers.
"""

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
    div,
    fma,
    load,
    load_i64,
    load_one,
    prefetch,
    splat,
    store,
    store_one,
    sub,
    sum_lanes,
    zero,
)
from ift_kernels.gated_add.types import Gates, Launch

_NEXT, _WORKER, _HIDDEN, _DELTA, _LAYER, _ROWS, _WIDTH, _RECORDS, _SCRATCH, _MAX_RANK, _CHUNK, _SLOTS = range(12)
_DOWN, _UP, _RANK, _OFFSET, _VALUE, _FIELDS = range(6)
_FP = np.float32(0)
_SERIAL_PRODUCTS = 1 << 18
"""Below so many, waking a second thread costs more than it saves."""


@inlined
def _narrow(kind, hidden, down, offset, rank, width, narrow):
    """``narrow[r] = down[r] . h + offset[r]``, four ranks at a time; past the end the last one is computed again."""
    for first in range(0, rank, 4):
        r1, r2, r3 = min(first + 1, rank - 1), min(first + 2, rank - 1), min(first + 3, rank - 1)
        s0, s1, s2, s3 = zero(), zero(), zero(), zero()
        for k in range(0, width, LANES):
            h = load(kind, hidden, k)
            s0 = fma(load(kind, down, first * width + k), h, s0)
            s1 = fma(load(kind, down, r1 * width + k), h, s1)
            s2 = fma(load(kind, down, r2 * width + k), h, s2)
            s3 = fma(load(kind, down, r3 * width + k), h, s3)
        store_one(_FP, narrow, first, sum_lanes(s0) + load_one(_FP, offset, first))
        store_one(_FP, narrow, r1, sum_lanes(s1) + load_one(_FP, offset, r1))
        store_one(_FP, narrow, r2, sum_lanes(s2) + load_one(_FP, offset, r2))
        store_one(_FP, narrow, r3, sum_lanes(s3) + load_one(_FP, offset, r3))


@inlined
def _let_in(kind, hidden, value, column, total):
    one = splat(np.float32(1.0))
    gate = div(one, add(one, exp(sub(zero(), total))))
    store(kind, hidden, column, fma(gate, load(kind, value, column), load(kind, hidden, column)))


@inlined
def _widen(kind, hidden, up, value, rank, width, narrow):
    """``h += sigmoid(sum_r narrow[r] up[r]) value``, 64 columns at a time."""
    column = 0
    while column + 4 * LANES <= width:
        s0, s1, s2, s3 = zero(), zero(), zero(), zero()
        for r in range(rank):
            t = splat(load_one(_FP, narrow, r))
            place = r * width + column
            s0 = fma(t, load(kind, up, place), s0)
            s1 = fma(t, load(kind, up, place + LANES), s1)
            s2 = fma(t, load(kind, up, place + 2 * LANES), s2)
            s3 = fma(t, load(kind, up, place + 3 * LANES), s3)
        _let_in(kind, hidden, value, column, s0)
        _let_in(kind, hidden, value, column + LANES, s1)
        _let_in(kind, hidden, value, column + 2 * LANES, s2)
        _let_in(kind, hidden, value, column + 3 * LANES, s3)
        column += 4 * LANES
    while column < width:
        s0 = zero()
        for r in range(rank):
            s0 = fma(splat(load_one(_FP, narrow, r)), load(kind, up, r * width + column), s0)
        _let_in(kind, hidden, value, column, s0)
        column += LANES


@inner
def _row(kind, size, args, row, before, narrow):
    """One row; ``before``: the record of the row before it, whose factors are in the processor's cache."""
    width, layer = load_i64(args, _WIDTH), load_i64(args, _LAYER)
    hidden = load_i64(args, _HIDDEN) + size * row * width
    if load_i64(args, _DELTA) != 0:
        delta = load_i64(args, _DELTA) + size * row * width
        for k in range(0, width, LANES):
            store(kind, hidden, k, add(load(kind, hidden, k), load(kind, delta, k)))
    record = load_i64(args, _RECORDS) + 8 * _FIELDS * row
    rank = load_i64(record, _RANK)
    if rank == 0:
        return
    factor = size * layer * rank * width
    down, up = load_i64(record, _DOWN) + factor, load_i64(record, _UP) + factor
    if before == 0 or load_i64(before, _UP) != load_i64(record, _UP):
        # Short streams, over before a processor that prefetches by itself has noticed them.
        for place in range(0, size * rank * width, 64):
            prefetch(down + place)
        for place in range(0, size * rank * width, 64):
            prefetch(up + place)
    _narrow(kind, hidden, down, load_i64(record, _OFFSET) + 4 * layer * rank, rank, width, narrow)
    _widen(kind, hidden, up, load_i64(record, _VALUE) + size * layer * width, rank, width, narrow)


@inner
def _work(kind, size, args):
    rows, chunk = load_i64(args, _ROWS), load_i64(args, _CHUNK)
    narrow = load_i64(args, _SCRATCH) + 4 * load_i64(args, _MAX_RANK) * openmp.take(args + 8 * _WORKER)
    before = 0
    while True:
        first = openmp.take(args + 8 * _NEXT) * chunk
        if first >= rows:
            return
        for row in range(first, min(first + chunk, rows)):
            _row(kind, size, args, row, before, narrow)
            before = load_i64(args, _RECORDS) + 8 * _FIELDS * row


@openmp.worker(torch.bfloat16)
def _worker_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


@openmp.worker(torch.float32)
def _worker_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


_WORKERS = {torch.bfloat16: _worker_bf16, torch.float32: _worker_fp32}


def _records(gates: Gates, rows: int) -> NDArray[np.int64]:
    records = np.zeros((rows, _FIELDS), dtype=np.int64)
    for group in gates.groups:
        sequence = group.sequence.numpy()
        own = np.empty((len(sequence), _FIELDS), dtype=np.int64)
        own[:, _DOWN], own[:, _UP] = group.down.data_ptr(), group.up.data_ptr()
        own[:, _RANK] = group.down.shape[1]
        own[:, _OFFSET] = np.array([terms.offset.data_ptr() for terms in group.terms], dtype=np.int64)[sequence]
        own[:, _VALUE] = np.array([terms.value.data_ptr() for terms in group.terms], dtype=np.int64)[sequence]
        records[slice(None) if group.rows is None else group.rows.numpy()] = own
    return records


def _launch(gates: Gates, hidden: Tensor) -> Launch:
    (rows, width), records = hidden.shape, _records(gates, hidden.shape[0])
    rank = int(records[:, _RANK].max(initial=1))
    threads = 1 if 2 * rank * width * rows < _SERIAL_PRODUCTS else min(torch.get_num_threads(), rows)
    scratch = np.empty((threads, rank), dtype=np.float32)
    arguments = np.zeros(_SLOTS, dtype=np.int64)
    chunk = max(1, -(-rows // (4 * threads)))
    arguments[_ROWS:] = (rows, width, records.ctypes.data, scratch.ctypes.data, rank, chunk)
    return Launch(arguments, openmp.compiled(_WORKERS[hidden.dtype]), threads, (records, scratch))


def gated_add_cpu(hidden: Tensor, delta: Tensor | None, layer: int, gates: Gates) -> None:
    """See :func:`ift_kernels.gated_add.gated_add`. Gates are used with one shape and dtype of hidden states."""
    if gates.launch is None:
        gates.launch = _launch(gates, hidden)
    launch = gates.launch
    values = (0, 0, hidden.data_ptr(), 0 if delta is None else delta.data_ptr(), layer)
    openmp.start(openmp.entry_point(), launch.worker, launch.arguments, launch.threads, values)
