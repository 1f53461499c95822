"""Rotation and cache write on the CPU, one token a work item."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ift_kernels.cpu_simd import openmp, simd
from ift_kernels.cpu_simd.inner import inlined, inner
from ift_kernels.cpu_simd.simd import (
    LANES,
    fma,
    load,
    load_i32,
    load_i64,
    load_one,
    mul,
    splat,
    store,
    store_one,
    sub,
    sum_lanes,
    zero,
)
from ift_kernels.instruction import mark_instruction

_NEXT, _STATES, _COSINE, _SINE, _POSITIONS, _SLOTS, _KEYS, _VALUES, _QUERY_NORM, _KEY_NORM = range(10)
_TOKENS, _HEADS, _KV_HEADS, _WIDTH, _ROTARY, _BLOCK, _EPSILON, _CHUNK = range(10, 18)


@inlined
def _normalise(kind, states, width, weight, epsilon):
    squares = zero()
    for i in range(0, width, LANES):
        x = load(kind, states, i)
        squares = fma(x, x, squares)
    scale = splat(np.float32(1.0) / np.sqrt(sum_lanes(squares) / np.float32(width) + epsilon))
    for i in range(0, width, LANES):
        store(kind, states, i, mul(load(kind, states, i), scale))
        store(kind, states, i, mul(load(kind, states, i), load(kind, weight, i)))


@inlined
def _rotate(kind, states, rotary, cosine, sine):
    fp = np.float32(0)
    half = rotary // 2
    i = 0
    while i + LANES <= half:
        a, b = load(kind, states, i), load(kind, states, half + i)
        store(kind, states, i, sub(mul(a, load(fp, cosine, i)), mul(b, load(fp, sine, i))))
        store(kind, states, half + i, fma(b, load(fp, cosine, half + i), mul(a, load(fp, sine, half + i))))
        i += LANES
    while i < half:
        x, y = load_one(kind, states, i), load_one(kind, states, half + i)
        store_one(kind, states, i, x * load_one(fp, cosine, i) - y * load_one(fp, sine, i))
        store_one(kind, states, half + i, y * load_one(fp, cosine, half + i) + x * load_one(fp, sine, half + i))
        i += 1


@inner
def _token(kind, size, args, token):
    heads, kv_heads, width = load_i64(args, _HEADS), load_i64(args, _KV_HEADS), load_i64(args, _WIDTH)
    block, rotary = load_i64(args, _BLOCK), load_i64(args, _ROTARY)
    epsilon = load_one(np.float32(0), args, 2 * _EPSILON)
    slot = load_i32(load_i64(args, _SLOTS), token)
    if slot < 0:
        return
    states = load_i64(args, _STATES) + size * token * (heads + 2 * kv_heads) * width
    position = load_i32(load_i64(args, _POSITIONS), token)
    cosine = load_i64(args, _COSINE) + 4 * position * rotary
    sine = load_i64(args, _SINE) + 4 * position * rotary
    for head in range(heads + kv_heads):
        item = states + size * head * width
        weight = load_i64(args, _QUERY_NORM) if head < heads else load_i64(args, _KEY_NORM)
        if weight != 0:
            _normalise(kind, item, width, weight, epsilon)
        _rotate(kind, item, rotary, cosine, sine)
    start = (slot // block) * kv_heads * width * block
    offset = slot % block
    for head in range(kv_heads):
        key = states + size * (heads + head) * width
        value = key + size * kv_heads * width
        target = load_i64(args, _KEYS) + size * (start + head * width * block + offset)
        for d in range(width):
            store_one(kind, target, d * block, load_one(kind, key, d))
        target = load_i64(args, _VALUES) + size * (start + (head * block + offset) * width)
        for d in range(0, width, LANES):
            store(kind, target, d, load(kind, value, d))


@inner
def _work(kind, size, args):
    tokens, chunk = load_i64(args, _TOKENS), load_i64(args, _CHUNK)
    while True:
        first = openmp.take(args + 8 * _NEXT) * chunk
        if first >= tokens:
            return
        for token in range(first, min(first + chunk, tokens)):
            _token(kind, size, args, token)


@openmp.worker(torch.bfloat16)
def _worker_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


@openmp.worker(torch.float32)
def _worker_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


_WORKERS = {torch.bfloat16: _worker_bf16, torch.float32: _worker_fp32}
_SERIAL_TOKENS = 8


def rotate_and_write_kv_cpu(
    states: Tensor,
    heads: int,
    kv_heads: int,
    cosine: Tensor,
    sine: Tensor,
    positions: Tensor,
    slots: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    query_norm: Tensor | None,
    key_norm: Tensor | None,
    epsilon: float,
    marks: tuple[Tensor, Tensor, Tensor] | None = None,
) -> None:
    """See :func:`ift_kernels.write_kv.rotate_and_write_kv`; ``marks`` is (segments, mask, sequence)."""
    tokens = states.shape[0]
    threads = 1 if tokens < _SERIAL_TOKENS else torch.get_num_threads()
    arguments = np.array(
        (
            0,
            states.data_ptr(),
            cosine.data_ptr(),
            sine.data_ptr(),
            positions.data_ptr(),
            slots.data_ptr(),
            key_cache.data_ptr(),
            value_cache.data_ptr(),
            0 if query_norm is None else query_norm.data_ptr(),
            0 if key_norm is None else key_norm.data_ptr(),
            tokens,
            heads,
            kv_heads,
            key_cache.shape[2],
            cosine.shape[1],
            key_cache.shape[3],
            0,
            max(1, -(-tokens // (4 * threads))),
        ),
        dtype=np.int64,
    )
    arguments.view(np.float32)[2 * _EPSILON] = epsilon
    openmp.run(openmp.entry_point(), openmp.compiled(_WORKERS[states.dtype]), arguments, threads)
    if marks is not None:
        segments, mask, sequence = marks
        mark_instruction(mask, sequence, positions, segments, slots)
