"""The gated activation on the CPU, a row a work item."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ift_kernels.cpu_simd import openmp, simd
from ift_kernels.cpu_simd.functions import exp
from ift_kernels.cpu_simd.inner import inner
from ift_kernels.cpu_simd.simd import (
    LANES,
    add,
    div,
    load,
    load_i64,
    mul,
    splat,
    store,
    sub,
    zero,
)

_NEXT, _INPUT, _OUTPUT, _ROWS, _WIDTH, _CHUNK = range(6)


@inner
def _work(kind, size, args):
    width, rows = load_i64(args, _WIDTH), load_i64(args, _ROWS)
    chunk = load_i64(args, _CHUNK)
    one = splat(np.float32(1.0))
    while True:
        first = openmp.take(args + 8 * _NEXT) * chunk
        if first >= rows:
            return
        for row in range(first, min(first + chunk, rows)):
            gate = load_i64(args, _INPUT) + size * row * 2 * width
            output = load_i64(args, _OUTPUT) + size * row * width
            for i in range(0, width, LANES):
                x = load(kind, gate, i)
                store(kind, output, i, div(x, add(one, exp(sub(zero(), x)))))
                store(kind, output, i, mul(load(kind, output, i), load(kind, gate, width + i)))


@openmp.worker(torch.bfloat16)
def _worker_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


@openmp.worker(torch.float32)
def _worker_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


_WORKERS = {torch.bfloat16: _worker_bf16, torch.float32: _worker_fp32}
_SERIAL_ELEMENTS = 8192


def silu_and_mul_cpu(gate_up: Tensor) -> Tensor:
    """See :func:`ift_kernels.silu_and_mul.silu_and_mul`."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    output = torch.empty((rows, width), dtype=gate_up.dtype)
    threads = 1 if rows * width < _SERIAL_ELEMENTS else torch.get_num_threads()
    arguments = np.array(
        (0, gate_up.data_ptr(), output.data_ptr(), rows, width, max(1, -(-rows // (4 * threads)))), dtype=np.int64
    )
    openmp.run(openmp.entry_point(), openmp.compiled(_WORKERS[gate_up.dtype]), arguments, threads)
    return output
