"""Predicted temperatures on the CPU, a row a work item."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ift_kernels.cpu_simd import openmp, simd
from ift_kernels.cpu_simd.inner import inner
from ift_kernels.cpu_simd.simd import LANES, fma, load, load_i32, load_i64, load_one, store_one, sum_lanes, zero
from ift_kernels.row_statistics.types import ENTROPY, P1, P2, RowStatistics
from ift_kernels.temperature_heads.types import LARGEST_FACTOR, HeadRows, HeadTable

_NEXT, _HIDDEN, _MEASURES, _BASE, _OUTPUT, _ROWS, _WIDTH, _STRIDE = range(8)
_MATRICES, _VECTORS, _WIDTHS, _BIASES, _HEADS, _INSTRUCTIONS, _LOWEST, _HIGHEST, _SLOTS = range(8, 17)
_FP = np.float32(0)
_LOG_FACTOR = np.float32(math.log(LARGEST_FACTOR))
_ROOT_HALF = np.float32(0.5**0.5)
_SERIAL_PRODUCTS = 100_000
"""Below so many, waking a second thread costs more than it saves."""


@inner
def _dot(kind, a, b, size):
    """Of two vectors; the order of the sum depends on the size alone."""
    total = zero()
    whole = size // LANES * LANES
    for i in range(0, whole, LANES):
        total = fma(load(kind, a, i), load(kind, b, i), total)
    result = sum_lanes(total)
    for i in range(whole, size):
        result += load_one(kind, a, i) * load_one(kind, b, i)
    return result


@inner
def _gelu(x):
    return np.float32(0.5) * x * (np.float32(1.0) + np.float32(math.erf(x * _ROOT_HALF)))


@inner
def _row(kind, size, args, row, slot, width):
    rows, d = load_i64(args, _ROWS), load_i64(args, _WIDTH)
    hidden = load_i64(args, _HIDDEN) + size * row * load_i64(args, _STRIDE)
    matrix, vectors = load_i64(load_i64(args, _MATRICES), slot), load_i64(load_i64(args, _VECTORS), slot)
    instruction = load_i64(load_i64(args, _INSTRUCTIONS), row)
    measures = load_i64(args, _MEASURES) + 4 * row
    entropy = load_one(_FP, measures, ENTROPY * rows)
    margin = load_one(_FP, measures, P1 * rows) - load_one(_FP, measures, P2 * rows)
    output = load_one(_FP, load_i64(args, _BIASES), slot)
    for i in range(width):
        feature = _dot(kind, matrix + size * i * d, hidden, d) + load_one(_FP, vectors, i)
        feature += load_one(_FP, vectors, width + i) * entropy + load_one(_FP, vectors, 2 * width + i) * margin
        if instruction != 0:
            feature += load_one(_FP, instruction, i)
        output += load_one(_FP, vectors, 3 * width + i) * _gelu(feature)
    return np.float32(np.exp(_LOG_FACTOR * np.float32(np.tanh(output))))


@inner
def _work(kind, size, args):
    while True:
        row = openmp.take(args + 8 * _NEXT)
        if row >= load_i64(args, _ROWS):
            return
        slot = load_i32(load_i64(args, _HEADS), row)
        width = load_i32(load_i64(args, _WIDTHS), slot)
        temperature = load_one(_FP, load_i64(args, _BASE), row)
        if slot > 0 and temperature > 0.0:
            if width > 0:
                temperature *= _row(kind, size, args, row, slot, width)
            lowest, highest = load_i64(args, _LOWEST), load_i64(args, _HIGHEST)
            temperature = min(max(temperature, load_one(_FP, lowest, row)), load_one(_FP, highest, row))
        store_one(_FP, load_i64(args, _OUTPUT), row, temperature)


@openmp.worker(torch.bfloat16)
def _worker_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


@openmp.worker(torch.float32)
def _worker_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


_WORKERS = {torch.bfloat16: _worker_bf16, torch.float32: _worker_fp32}


def temperature_heads_cpu(
    hidden: Tensor, statistics: RowStatistics, base: Tensor, table: HeadTable, rows: HeadRows
) -> Tensor:
    """See :func:`ift_kernels.temperature_heads.temperature_heads`. Rows may be strided."""
    count, width = hidden.shape
    result = torch.empty(count, dtype=torch.float32)
    products = int(np.count_nonzero(rows.slots.numpy())) * width * table.max_width
    arguments = np.zeros(_SLOTS, dtype=np.int64)
    arguments[_HIDDEN:_ROWS] = [t.data_ptr() for t in (hidden, statistics.measures, base, result)]
    arguments[_ROWS:_MATRICES] = (count, width, hidden.stride(0))
    tables = (table.matrices, table.vectors, table.widths, table.biases)
    of_rows = (rows.slots, rows.instructions, rows.lowest, rows.highest)
    arguments[_MATRICES:_SLOTS] = [t.data_ptr() for t in (*tables, *of_rows)]
    threads = 1 if products < _SERIAL_PRODUCTS else min(torch.get_num_threads(), count)
    openmp.run(openmp.entry_point(), openmp.compiled(_WORKERS[hidden.dtype]), arguments, threads)
    return result
