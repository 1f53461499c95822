"""Log-probabilities in the distributions that rows were drawn from, on the CPU."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np

from ift_kernels.cpu_simd.functions import exp
from ift_kernels.cpu_simd.inner import inner
from ift_kernels.cpu_simd.simd import (
    LANES,
    add,
    keep_at_least,
    load,
    load_i32,
    load_i64,
    load_one,
    splat,
    store_one,
    sub,
    sum_lanes,
    zero,
)
from ift_kernels.row_statistics.types import TOP
from ift_kernels.sample_rows import cpu_arguments as at

_FP = np.float32(0)
_ZERO = np.float32(0.0)
_NONE = np.float32(-np.inf)


@inner
def wants_processed(args, row):
    """Whether they are to be told of the row."""
    table = load_i64(args, at.WANTED)
    return table != 0 and load_i32(table, row) != 0


@inner
def report_certain(args, row, token):
    """A greedy row: its token is certain."""
    out, ids = load_i64(args, at.PROCESSED) + 4 * row * (1 + TOP), load_i64(args, at.TOP_IDS) + 4 * row * TOP
    store_one(_FP, out, 0, _ZERO)
    for i in range(TOP):
        store_one(_FP, out, 1 + i, _ZERO if load_i32(ids, i) == token else _NONE)


@inner
def report_scores(args, row, scores, padded, threshold, top, token):
    """The log-probabilities of the token and of the likeliest ones, by the scores from ``threshold`` up to ``top``."""
    limit, highest = splat(threshold), splat(top)
    total = zero()
    for i in range(0, padded, LANES):
        z = load(_FP, scores, i)
        total = add(total, keep_at_least(exp(sub(z, highest)), z, limit))
    log_mass = np.float32(np.log(sum_lanes(total)))
    out, ids = load_i64(args, at.PROCESSED) + 4 * row * (1 + TOP), load_i64(args, at.TOP_IDS) + 4 * row * TOP
    for i in range(1 + TOP):
        place = token if i == 0 else load_i32(ids, i - 1)
        z = load_one(_FP, scores, place) if place >= 0 else _NONE
        store_one(_FP, out, i, z - top - log_mass if z >= threshold else _NONE)
