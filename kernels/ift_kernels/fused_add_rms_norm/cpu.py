"""Residual addition and RMS normalisation on the CPU, a row a work item."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ift_kernels.cpu_simd import openmp, simd
from ift_kernels.cpu_simd.inner import inner
from ift_kernels.cpu_simd.simd import (
    LANES,
    add,
    fma,
    load,
    load_i64,
    load_one,
    mul,
    splat,
    store,
    sum_lanes,
    zero,
)

_NEXT, _HIDDEN, _DELTA, _WEIGHT, _OUTPUT, _ROWS, _WIDTH, _EPSILON, _CHUNK = range(9)


@inner
def _work(kind, size, args):
    width, rows = load_i64(args, _WIDTH), load_i64(args, _ROWS)
    chunk = load_i64(args, _CHUNK)
    epsilon = load_one(np.float32(0), args, 2 * _EPSILON)
    delta, weight = load_i64(args, _DELTA), load_i64(args, _WEIGHT)
    while True:
        first = openmp.take(args + 8 * _NEXT) * chunk
        if first >= rows:
            return
        for row in range(first, min(first + chunk, rows)):
            hidden = load_i64(args, _HIDDEN) + size * row * width
            output = load_i64(args, _OUTPUT) + size * row * width
            squares = zero()
            for i in range(0, width, LANES):
                x = load(kind, hidden, i)
                if delta != 0:
                    store(kind, hidden, i, add(x, load(kind, delta, row * width + i)))
                    x = load(kind, hidden, i)
                squares = fma(x, x, squares)
            scale = splat(np.float32(1.0) / np.sqrt(sum_lanes(squares) / np.float32(width) + epsilon))
            for i in range(0, width, LANES):
                store(kind, output, i, mul(load(kind, hidden, i), scale))
                store(kind, output, i, mul(load(kind, output, i), load(kind, weight, i)))


@openmp.worker(torch.bfloat16)
def _worker_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


@openmp.worker(torch.float32)
def _worker_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


_WORKERS = {torch.bfloat16: _worker_bf16, torch.float32: _worker_fp32}
_SERIAL_ELEMENTS = 16384
"""Below this, waking a second thread costs more than it saves."""


def fused_add_rms_norm_cpu(hidden: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float) -> Tensor:
    """See :func:`ift_kernels.fused_add_rms_norm.fused_add_rms_norm`."""
    output = torch.empty_like(hidden)
    rows, width = hidden.shape
    threads = 1 if rows * width < _SERIAL_ELEMENTS else torch.get_num_threads()
    arguments = np.array(
        (
            0,
            hidden.data_ptr(),
            0 if delta is None else delta.data_ptr(),
            weight.data_ptr(),
            output.data_ptr(),
            rows,
            width,
            0,
            max(1, -(-rows // (4 * threads))),
        ),
        dtype=np.int64,
    )
    arguments.view(np.float32)[2 * _EPSILON] = epsilon
    openmp.run(openmp.entry_point(), openmp.compiled(_WORKERS[hidden.dtype]), arguments, threads)
    return output
