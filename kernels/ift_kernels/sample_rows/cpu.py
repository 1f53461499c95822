"""Drawing on the CPU, one row of logits a work item."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ift_kernels.cpu_simd import openmp, simd
from ift_kernels.cpu_simd.functions import log, uniform
from ift_kernels.cpu_simd.inner import inlined, inner
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
from ift_kernels.row_statistics.cpu import SLOTS, empty_statistics, fill_arguments, measure_row
from ift_kernels.row_statistics.types import LARGEST, LOG_MASS, P1, TOP, RowStatistics
from ift_kernels.sample_rows import cpu_arguments as at
from ift_kernels.sample_rows.cpu_arguments import addresses, fill_parameters
from ift_kernels.sample_rows.cpu_processed import report_certain, report_scores, wants_processed
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

_STATISTIC_COUNT = 5
_NONE = np.float32(-np.inf)
_SMALLEST = np.float32(1.17549435e-38)
_LARGEST = np.float32(3.4028234e38)
_FAR = np.float32(2.0**100)
_FP = np.float32(0)
_OFF = np.float32(0.0)


@inner
def _say_nothing(args, row, token):
    """A row without a distribution, or without a token: statistics that are NaN."""
    store_i32(load_i64(args, at.TOKENS), row, token)
    for i in range(_STATISTIC_COUNT):
        store_one(_FP, load_i64(args, at.STATISTICS) + 4 * row * _STATISTIC_COUNT, i, np.float32(np.nan))


@inner
def _option(args, table, row, off):
    """The row's entry of a table of floats that may be absent."""
    address = load_i64(args, table)
    return load_one(_FP, address, row) if address != 0 else off


@inner
def _copy_row(kind, source, target, size, padded):
    """Copy a row of logits to float32, padded with -inf."""
    whole = size // LANES * LANES
    for i in range(0, whole, LANES):
        store(_FP, target, i, load(kind, source, i))
    for i in range(whole, padded):
        store_one(_FP, target, i, load_one(kind, source, i) if i < size else _NONE)


@inner
def _argmax(row, padded, top):
    """First index of ``top``, the largest value."""
    for i in range(0, padded, LANES):
        if max_lanes(load(_FP, row, i)) == top:
            for j in range(i, i + LANES):
                if load_one(_FP, row, j) == top:
                    return j
    return 0


@inner
def _adjust(args, row, scratch):
    """Bias and penalties of a row that has any, in place."""
    offsets = load_i64(args, at.OFFSETS)
    first, end = load_i32(offsets, row), load_i32(offsets, row + 1)
    repetition = load_one(_FP, load_i64(args, at.REPETITION), row)
    presence = load_one(_FP, load_i64(args, at.PRESENCE), row)
    frequency = load_one(_FP, load_i64(args, at.FREQUENCY), row)
    for entry in range(first, end):
        token = load_i32(load_i64(args, at.IDS), entry)
        generated = load_i32(load_i64(args, at.GENERATED), entry)
        x = load_one(_FP, scratch, token) + load_one(_FP, load_i64(args, at.BIAS), entry)
        if generated >= 0:
            x = x / repetition if x > 0 else x * repetition
            x -= frequency * np.float32(generated)
            if generated > 0:
                x -= presence
        store_one(_FP, scratch, token, min(x, _LARGEST))


@inner
def _largest(row, padded):
    best = splat(_NONE)
    for i in range(0, padded, LANES):
        best = maximum(best, load(_FP, row, i))
    return max_lanes(best)


@inner
def _is_adjusted(args, row):
    offsets = load_i64(args, at.OFFSETS)
    return offsets != 0 and load_i32(offsets, row + 1) > load_i32(offsets, row)


@inner
def _mask_of(args, row):
    """The row's mask, -1 for none."""
    table = load_i64(args, at.MASK_OF_ROW)
    return load_i32(table, row) if table != 0 else -1


@inner
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


@inlined
def _temper(kind, source, scratch, whole, padded, size, origin, factor):
    """``(x - origin) * factor`` of a row, padded with -inf."""
    inverse, zero_point = splat(factor), splat(origin)
    for i in range(0, whole, LANES):
        store(_FP, scratch, i, mul(sub(load(kind, source, i), zero_point), inverse))
    for i in range(whole, padded):
        x = load_one(kind, source, i) if i < size else _NONE
        store_one(_FP, scratch, i, (x - origin) * factor)


@inner
def _threshold(args, row, scratch, weights, padded, top, sigma):
    """The smallest tempered logit that stays, ``sigma`` being where top-n-sigma puts it."""
    threshold = sigma
    top_k = load_i32(load_i64(args, at.TOP_K), row)
    top_p = load_one(_FP, load_i64(args, at.TOP_P), row)
    min_p = load_one(_FP, load_i64(args, at.MIN_P), row)
    if 0 < top_k < load_i64(args, at.SIZE):
        threshold = max(threshold, count_threshold(weights, scratch, padded, top, np.float32(top_k)))
    if top_p < 1.0:
        total = weigh(weights, scratch, padded, top, threshold)
        threshold = max(threshold, mass_threshold(weights, scratch, padded, top, top_p * total))
    if min_p > 0.0:
        threshold = max(threshold, top + np.float32(np.log(min_p)))
    if _option(args, at.P_LESS, row, _OFF) > 0.0:
        total = weigh(weights, scratch, padded, top, threshold)
        threshold = max(threshold, collision_threshold(weights, padded, top, total))
    alpha = _option(args, at.TOP_H, row, _OFF)
    if 0.0 < alpha < 1.0:  # of all of the entropy everything stays
        weigh(weights, scratch, padded, top, threshold)
        threshold = keep_entropy(weights, scratch, padded, top, threshold, alpha)
    return threshold


@inner
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


@inner
def _least_that_can_win(top):
    """No value below it is the largest after noise, which is from -2.82 to 16.64. Of values so large that float32 lacks
    the digits for noise, all could be."""
    return top - np.float32(20.0) if abs(top) < np.float32(2.0**20) else LOWEST


@inner
def _gumbel_max(args, row, scratch, scores, padded, threshold, least):
    """First index of the largest value plus noise among those from ``threshold`` on; from ``least`` on one could be."""
    seed = load_i64(load_i64(args, at.SEEDS), row)
    step = load_i32(load_i64(args, at.STEPS), row)
    lowest = max(threshold, least)
    limit, best = splat(threshold), splat(_NONE)
    for i in range(0, padded, LANES):
        z = load(_FP, scratch, i)
        if lowest > LOWEST and max_lanes(z) < lowest:
            store(_FP, scores, i, splat(_NONE))
            continue
        u = uniform(seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, i, step)
        gumbel = sub(zero(), log(sub(zero(), log(u))))
        score = choose_at_least(add(z, gumbel), z, limit, _NONE)
        store(_FP, scores, i, score)
        best = maximum(best, score)
    return _argmax(scores, padded, max_lanes(best))


@inner
def _draw(kind, source, args, row, scratch, weights, largest, copied):
    """A token of the row, whose largest logit is known; ``copied`` if scratch has the logits to draw from."""
    size, padded = load_i64(args, at.SIZE), load_i64(args, at.PADDED)
    factor = np.float32(1.0) / max(load_one(_FP, load_i64(args, at.TEMPERATURE), row), _SMALLEST)
    # Far out, the largest logit becomes the zero of the row, so that nothing overflows but what is never drawn.
    origin = largest if not abs(largest) * factor < _FAR else np.float32(0.0)
    threshold = LOWEST
    n = _option(args, at.SIGMA, row, _OFF)
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
    near = _option(args, at.NEAR, row, np.float32(-1.0))
    if near < 0.0:
        token = _gumbel_max(args, row, scratch, weights, padded, threshold, _least_that_can_win(top))
        if wants_processed(args, row):
            report_scores(args, row, scratch, padded, threshold, top, token)
        return token
    mass = _near_scores(scratch, weights, padded, top, threshold, near)
    token = _gumbel_max(args, row, scratch, weights + 4 * padded, padded, LOWEST, LOWEST)
    if wants_processed(args, row):
        report_scores(args, row, scratch, padded, LOWEST, _largest(scratch, padded), token)
    store_one(_FP, load_i64(args, at.PROBABILITIES), row, load_one(_FP, weights, token) / mass)
    return token


@inner
def _choose(kind, source, args, row, scratch, weights, largest, copied):
    """The row's token, -1 where there is none."""
    size, padded = load_i64(args, at.SIZE), load_i64(args, at.PADDED)
    adjusted, mask = _is_adjusted(args, row), _mask_of(args, row)
    changed = adjusted or mask >= 0
    greedy = load_one(_FP, load_i64(args, at.TEMPERATURE), row) == 0.0
    if changed:
        if not copied:
            _copy_row(kind, source, scratch, size, padded)
        if adjusted:
            _adjust(args, row, scratch)
        if mask >= 0:
            words = load_i64(args, at.WORDS)
            _forbid(load_i64(args, at.BITS) + 4 * mask * words, words, scratch)
        largest = _largest(scratch, padded)
        if largest == _NONE:
            return -1
    if not greedy:
        return _draw(kind, source, args, row, scratch, weights, largest, changed or copied)
    if changed:
        token = _argmax(scratch, padded, largest)
    else:
        token = load_i32(load_i64(args, at.TOP_IDS) + 4 * row * TOP, 0)
    if wants_processed(args, row):
        report_certain(args, row, token)
    return token


@inner
def _row(kind, size, args, row, scratch, weights, copied):
    """``copied``: scratch has the row's logits in float32, padded."""
    rows = load_i64(args, at.ROWS)
    source = load_i64(args, at.LOGITS) + size * row * load_i64(args, at.STRIDE)
    measures = load_i64(args, at.MEASURES) + 4 * row
    largest, log_mass = load_one(_FP, measures, LARGEST * rows), load_one(_FP, measures, LOG_MASS * rows)
    token = load_i32(load_i64(args, at.TARGETS), row)
    if np.isnan(log_mass):
        _say_nothing(args, row, max(token, 0))
        return
    if token < 0:
        token = _choose(kind, source, args, row, scratch, weights, largest, copied)
    if token < 0:
        _say_nothing(args, row, token)
        return
    store_i32(load_i64(args, at.TOKENS), row, token)
    statistics = load_i64(args, at.STATISTICS) + 4 * row * _STATISTIC_COUNT
    store_one(_FP, statistics, 0, load_one(kind, source, token) - largest - log_mass)
    for i in range(1, _STATISTIC_COUNT):
        store_one(_FP, statistics, i, load_one(_FP, measures, (P1 - 1 + i) * rows))


@inner
def _work(kind, size, measured):
    """What is measured comes first among the arguments. Where it is not known, a row's statistics and its draw are made
    one after the other, while it is in the caches."""
    args = measured + 8 * SLOTS
    padded, unknown = load_i64(args, at.PADDED), load_i64(args, at.UNKNOWN) != 0
    scratch = load_i64(args, at.SCRATCH) + openmp.take(args + 8 * at.WORKER) * padded * 4 * load_i64(args, at.BUFFERS)
    while True:
        row = openmp.take(args + 8 * at.NEXT)
        if row >= load_i64(args, at.ROWS):
            return
        if unknown:
            measure_row(kind, size, measured, row, scratch)
        _row(kind, size, args, row, scratch, scratch + 4 * padded, unknown)


@openmp.worker(torch.bfloat16)
def _worker_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


@openmp.worker(torch.float32)
def _worker_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


_WORKERS = {torch.bfloat16: _worker_bf16, torch.float32: _worker_fp32}


def _computes(parameters: RowParameters) -> bool:
    """Whether any row needs more than a look at what is known; else waking a second thread costs more than it saves."""
    p = parameters
    return p.adjustments is not None or p.masks is not None or bool(np.count_nonzero(p.temperature.numpy()))


def sample_rows_cpu(logits: Tensor, parameters: RowParameters, known: RowStatistics | None) -> SampledRows:
    """See :func:`ift_kernels.sample_rows.sample_rows`. What is not known is computed row by row, before its draw."""
    rows, size = logits.shape
    padded = -(-size // (2 * LANES)) * 2 * LANES  # whole words of a mask
    threads = max(1, min(torch.get_num_threads(), rows)) if known is None or _computes(parameters) else 1
    buffers = 2 if parameters.near is None else 3
    scratch = torch.empty(threads * padded * buffers, dtype=torch.float32)
    tokens = torch.empty(rows, dtype=torch.int32)
    statistics = torch.empty((rows, _STATISTIC_COUNT), dtype=torch.float32)
    probabilities = None if parameters.near is None else torch.full((rows,), float("nan"))
    processed = None if parameters.processed is None else torch.full((rows, 1 + TOP), float("nan"))
    found = empty_statistics(rows) if known is None else known
    everything = np.zeros(SLOTS + at.SLOTS, dtype=np.int64)
    arguments = everything[SLOTS:]
    fill_parameters(arguments, parameters)
    arguments[at.LOGITS : at.PROBABILITIES] = addresses(logits, scratch, tokens, statistics)
    arguments[at.PROBABILITIES] = 0 if probabilities is None else probabilities.data_ptr()
    arguments[at.PROCESSED] = 0 if processed is None else processed.data_ptr()
    arguments[at.BUFFERS] = buffers
    arguments[at.ROWS : at.MEASURES] = (rows, size, padded, logits.stride(0))
    arguments[at.MEASURES : at.TEMPERATURE] = addresses(found.measures, found.top_ids)
    arguments[at.UNKNOWN] = known is None
    if known is None:
        fill_arguments(everything, logits, scratch, padded, found)
    openmp.run(openmp.entry_point(), openmp.compiled(_WORKERS[logits.dtype]), everything, threads)
    return SampledRows(tokens, statistics, found.top_ids, found.top_log_probs, probabilities, processed)
