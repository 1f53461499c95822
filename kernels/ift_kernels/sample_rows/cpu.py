"""Drawing on the CPU, one row of logits a work item."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from ift_kernels.cpu_simd import openmp, simd
from ift_kernels.cpu_simd.functions import log, uniform
from ift_kernels.cpu_simd.simd import (
    LANES,
    add,
    choose_at_least,
    choose_by_bits,
    div,
    load,
    load_i32,
    load_i64,
    load_one,
    max_lanes,
    maximum,
    mul,
    splat,
    store,
    store_i32,
    store_one,
    sub,
    zero,
)
from ift_kernels.row_statistics.types import LARGEST, LOG_MASS, P1, TOP, RowStatistics
from ift_kernels.sample_rows.thresholds import (
    LOWEST,
    collision_threshold,
    count_threshold,
    keep_entropy,
    mass_threshold,
    sigma_threshold,
    weigh,
)
from ift_kernels.sample_rows.types import RowParameters, SampledRows

_NEXT, _WORKER, _LOGITS, _SCRATCH, _TOKENS, _STATISTICS, _PROBABILITIES, _ROWS, _SIZE, _PADDED, _STRIDE = range(11)
_MEASURES, _TOP_IDS, _TEMPERATURE, _TOP_P, _MIN_P, _TOP_K, _SEEDS, _STEPS, _TARGETS = range(11, 20)
_OFFSETS, _IDS, _GENERATED, _BIAS, _REPETITION, _PRESENCE, _FREQUENCY = range(20, 27)
_BITS, _MASK_OF_ROW, _WORDS, _SIGMA, _P_LESS, _TOP_H, _NEAR, _BUFFERS, _SLOTS = range(27, 36)
_STATISTIC_COUNT = 5
_NONE = np.float32(-np.inf)
_SMALLEST = np.float32(1.17549435e-38)
_LARGEST = np.float32(3.4028234e38)
_FAR = np.float32(2.0**100)
_FP = np.float32(0)
_OFF = np.float32(0.0)


@njit
def _say_nothing(args, row, token):
    """A row without a distribution, or without a token: statistics that are NaN."""
    store_i32(load_i64(args, _TOKENS), row, token)
    for i in range(_STATISTIC_COUNT):
        store_one(_FP, load_i64(args, _STATISTICS) + 4 * row * _STATISTIC_COUNT, i, np.float32(np.nan))


@njit
def _option(args, table, row, off):
    """The row's entry of a table of floats that may be absent."""
    address = load_i64(args, table)
    return load_one(_FP, address, row) if address != 0 else off


@njit
def _copy_row(kind, source, target, size, padded):
    """Copy a row of logits to float32, padded with -inf."""
    whole = size // LANES * LANES
    for i in range(0, whole, LANES):
        store(_FP, target, i, load(kind, source, i))
    for i in range(whole, padded):
        store_one(_FP, target, i, load_one(kind, source, i) if i < size else _NONE)


@njit
def _argmax(row, padded, top):
    """First index of ``top``, the largest value."""
    for i in range(0, padded, LANES):
        if max_lanes(load(_FP, row, i)) == top:
            for j in range(i, i + LANES):
                if load_one(_FP, row, j) == top:
                    return j
    return 0


@njit
def _adjust(args, row, scratch):
    """Bias and penalties of a row that has any, in place."""
    offsets = load_i64(args, _OFFSETS)
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


@njit
def _largest(row, padded):
    best = splat(_NONE)
    for i in range(0, padded, LANES):
        best = maximum(best, load(_FP, row, i))
    return max_lanes(best)


@njit
def _is_adjusted(args, row):
    offsets = load_i64(args, _OFFSETS)
    return offsets != 0 and load_i32(offsets, row + 1) > load_i32(offsets, row)


@njit
def _mask_of(args, row):
    """The row's mask, -1 for none."""
    table = load_i64(args, _MASK_OF_ROW)
    return load_i32(table, row) if table != 0 else -1


@njit
def _forbid(bits, words, scratch):
    """-inf for what a mask does not allow, in place. The padding is -inf already."""
    for word in range(words):
        allowed = load_i32(bits, word)
        if allowed == -1:
            continue
        first = 32 * word
        store(_FP, scratch, first, choose_by_bits(load(_FP, scratch, first), allowed, _NONE))
        second = first + LANES
        store(_FP, scratch, second, choose_by_bits(load(_FP, scratch, second), allowed >> LANES, _NONE))


@njit(inline="always")
def _temper(kind, source, scratch, whole, padded, size, origin, factor):
    """``(x - origin) * factor`` of a row, padded with -inf."""
    inverse, zero_point = splat(factor), splat(origin)
    for i in range(0, whole, LANES):
        store(_FP, scratch, i, mul(sub(load(kind, source, i), zero_point), inverse))
    for i in range(whole, padded):
        x = load_one(kind, source, i) if i < size else _NONE
        store_one(_FP, scratch, i, (x - origin) * factor)


@njit
def _threshold(args, row, scratch, weights, padded, top, sigma):
    """The smallest tempered logit that stays, ``sigma`` being where top-n-sigma puts it."""
    threshold = sigma
    top_k = load_i32(load_i64(args, _TOP_K), row)
    top_p = load_one(_FP, load_i64(args, _TOP_P), row)
    min_p = load_one(_FP, load_i64(args, _MIN_P), row)
    if 0 < top_k < load_i64(args, _SIZE):
        threshold = max(threshold, count_threshold(weights, scratch, padded, top, np.float32(top_k)))
    if top_p < 1.0:
        total = weigh(weights, scratch, padded, top, threshold)
        threshold = max(threshold, mass_threshold(weights, scratch, padded, top, top_p * total))
    if min_p > 0.0:
        threshold = max(threshold, top + np.float32(np.log(min_p)))
    if _option(args, _P_LESS, row, _OFF) > 0.0:
        total = weigh(weights, scratch, padded, top, threshold)
        threshold = max(threshold, collision_threshold(weights, padded, top, total))
    alpha = _option(args, _TOP_H, row, _OFF)
    if alpha > 0.0:
        weigh(weights, scratch, padded, top, threshold)
        threshold = keep_entropy(weights, scratch, padded, top, threshold, alpha)
    return threshold


@njit
def _near_scores(scratch, weights, padded, top, threshold, near):
    """adaptive-p: scores in place of tempered logits. Returns the mass of what stays."""
    mass = weigh(weights, scratch, padded, top, threshold)
    one, ten, five = splat(np.float32(1.0)), splat(np.float32(10.0)), splat(np.float32(5.0))
    inverse, target, width = splat(np.float32(1.0) / mass), splat(near), splat(np.float32(1.0) / np.float32(0.3))
    for i in range(0, padded, LANES):
        apart = mul(sub(mul(load(_FP, weights, i), inverse), target), width)
        distance = maximum(apart, sub(zero(), apart))
        score = sub(five, div(mul(ten, mul(distance, distance)), add(one, distance)))
        store(_FP, scratch, i, choose_at_least(score, load(_FP, scratch, i), splat(threshold), _NONE))
    return mass


@njit
def _gumbel_max(args, row, scratch, scores, padded, threshold):
    """First index of the largest value plus noise among the values from ``threshold`` on."""
    seed = load_i64(load_i64(args, _SEEDS), row)
    step = load_i32(load_i64(args, _STEPS), row)
    truncated = threshold > LOWEST
    limit, best = splat(threshold), splat(_NONE)
    for i in range(0, padded, LANES):
        z = load(_FP, scratch, i)
        if truncated and max_lanes(z) < threshold:
            store(_FP, scores, i, splat(_NONE))
            continue
        u = uniform(seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, i, step)
        gumbel = sub(zero(), log(sub(zero(), log(u))))
        score = choose_at_least(add(z, gumbel), z, limit, _NONE)
        store(_FP, scores, i, score)
        best = maximum(best, score)
    return _argmax(scores, padded, max_lanes(best))


@njit
def _draw(kind, source, args, row, scratch, weights, largest, copied):
    """A token of the row, whose largest logit is known; ``copied`` if scratch has the logits to draw from."""
    size, padded = load_i64(args, _SIZE), load_i64(args, _PADDED)
    factor = np.float32(1.0) / max(load_one(_FP, load_i64(args, _TEMPERATURE), row), _SMALLEST)
    # Far out, the largest logit becomes the zero of the row, so that nothing overflows but what is never drawn.
    origin = largest if not abs(largest) * factor < _FAR else np.float32(0.0)
    threshold = LOWEST
    n = _option(args, _SIGMA, row, _OFF)
    if n > 0.0:
        if not copied:
            _copy_row(kind, source, scratch, size, padded)
            copied = True
        threshold = max(threshold, (sigma_threshold(scratch, padded, largest, n) - origin) * factor)
    if copied:
        _temper(_FP, scratch, scratch, padded, padded, padded, origin, factor)
    else:
        _temper(kind, source, scratch, size // LANES * LANES, padded, size, origin, factor)
    top = (largest - origin) * factor
    threshold = _threshold(args, row, scratch, weights, padded, top, threshold)
    near = _option(args, _NEAR, row, np.float32(-1.0))
    if near < 0.0:
        return _gumbel_max(args, row, scratch, weights, padded, threshold)
    mass = _near_scores(scratch, weights, padded, top, threshold, near)
    token = _gumbel_max(args, row, scratch, weights + 4 * padded, padded, LOWEST)
    store_one(_FP, load_i64(args, _PROBABILITIES), row, load_one(_FP, weights, token) / mass)
    return token


@njit
def _choose(kind, source, args, row, scratch, weights, largest):
    """The row's token, -1 where there is none."""
    size, padded = load_i64(args, _SIZE), load_i64(args, _PADDED)
    adjusted, mask = _is_adjusted(args, row), _mask_of(args, row)
    changed = adjusted or mask >= 0
    greedy = load_one(_FP, load_i64(args, _TEMPERATURE), row) == 0.0
    if changed:
        _copy_row(kind, source, scratch, size, padded)
        if adjusted:
            _adjust(args, row, scratch)
        if mask >= 0:
            words = load_i64(args, _WORDS)
            _forbid(load_i64(args, _BITS) + 4 * mask * words, words, scratch)
        largest = _largest(scratch, padded)
        if largest == _NONE:
            return -1
        if greedy:
            return _argmax(scratch, padded, largest)
    if greedy:
        return load_i32(load_i64(args, _TOP_IDS) + 4 * row * TOP, 0)
    return _draw(kind, source, args, row, scratch, weights, largest, changed)


@njit
def _row(kind, size, args, row, scratch, weights):
    rows = load_i64(args, _ROWS)
    source = load_i64(args, _LOGITS) + size * row * load_i64(args, _STRIDE)
    measures = load_i64(args, _MEASURES) + 4 * row
    largest, log_mass = load_one(_FP, measures, LARGEST * rows), load_one(_FP, measures, LOG_MASS * rows)
    token = load_i32(load_i64(args, _TARGETS), row)
    if np.isnan(log_mass):
        _say_nothing(args, row, max(token, 0))
        return
    if token < 0:
        token = _choose(kind, source, args, row, scratch, weights, largest)
    if token < 0:
        _say_nothing(args, row, token)
        return
    store_i32(load_i64(args, _TOKENS), row, token)
    statistics = load_i64(args, _STATISTICS) + 4 * row * _STATISTIC_COUNT
    store_one(_FP, statistics, 0, load_one(kind, source, token) - largest - log_mass)
    for i in range(1, _STATISTIC_COUNT):
        store_one(_FP, statistics, i, load_one(_FP, measures, (P1 - 1 + i) * rows))


@njit
def _work(kind, size, args):
    padded = load_i64(args, _PADDED)
    scratch = load_i64(args, _SCRATCH) + openmp.take(args + 8 * _WORKER) * padded * 4 * load_i64(args, _BUFFERS)
    while True:
        row = openmp.take(args + 8 * _NEXT)
        if row >= load_i64(args, _ROWS):
            return
        _row(kind, size, args, row, scratch, scratch + 4 * padded)


def _worker_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


def _worker_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


_WORKERS = {torch.bfloat16: _worker_bf16, torch.float32: _worker_fp32}


def _addresses(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _arguments(parameters: RowParameters) -> NDArray[np.int64]:
    """The addresses of everything that varies by row, 0 for what is absent."""
    arguments = np.zeros(_SLOTS, dtype=np.int64)
    p = parameters
    arguments[_TEMPERATURE:_OFFSETS] = _addresses(p.temperature, p.top_p, p.min_p, p.top_k, p.seeds, p.steps, p.targets)
    if (a := p.adjustments) is not None:
        arguments[_OFFSETS:_BITS] = _addresses(
            a.offsets, a.token_ids, a.generated, a.bias, a.repetition, a.presence, a.frequency
        )
    if (m := p.masks) is not None:
        arguments[_BITS:_SIGMA] = (*_addresses(m.bits, m.of_row), m.bits.shape[1])
    if (t := p.truncations) is not None:
        arguments[_SIGMA:_TOP_H] = _addresses(t.top_n_sigma, t.p_less)
        arguments[_TOP_H] = 0 if t.top_h is None else t.top_h.data_ptr()
    if p.near is not None:
        arguments[_NEAR] = p.near.data_ptr()
    return arguments


def _computes(parameters: RowParameters) -> bool:
    """Whether any row needs more than a look at what is known; else waking a second thread costs more than it saves."""
    p = parameters
    return p.adjustments is not None or p.masks is not None or bool(np.count_nonzero(p.temperature.numpy()))


def sample_rows_cpu(logits: Tensor, parameters: RowParameters, known: RowStatistics) -> SampledRows:
    """See :func:`ift_kernels.sample_rows.sample_rows`."""
    rows, size = logits.shape
    padded = -(-size // (2 * LANES)) * 2 * LANES  # whole words of a mask
    threads = max(1, min(torch.get_num_threads(), rows)) if _computes(parameters) else 1
    buffers = 2 if parameters.near is None else 3
    scratch = torch.empty(threads * padded * buffers, dtype=torch.float32)
    tokens = torch.empty(rows, dtype=torch.int32)
    statistics = torch.empty((rows, _STATISTIC_COUNT), dtype=torch.float32)
    probabilities = None if parameters.near is None else torch.full((rows,), float("nan"))
    arguments = _arguments(parameters)
    arguments[_LOGITS:_PROBABILITIES] = _addresses(logits, scratch, tokens, statistics)
    arguments[_PROBABILITIES] = 0 if probabilities is None else probabilities.data_ptr()
    arguments[_BUFFERS] = buffers
    arguments[_ROWS:_MEASURES] = (rows, size, padded, logits.stride(0))
    arguments[_MEASURES:_TEMPERATURE] = _addresses(known.measures, known.top_ids)
    openmp.run(openmp.entry_point(), openmp.compiled(_WORKERS[logits.dtype]), arguments, threads)
    return SampledRows(tokens, statistics, known.top_ids, known.top_log_probs, probabilities)
