"""Log-probabilities in the distributions that rows were drawn from on a GPU, in Triton."""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from ift_kernels.row_statistics.types import LOG_MASS, TOP
from ift_kernels.sample_rows.triton_thresholds import ROW_PARAMETERS, near_score, scale, stays

_LOG_MASS = tl.constexpr(LOG_MASS)
_TOP = tl.constexpr(TOP)
_HIGHEST_NEAR_SCORE = tl.constexpr(5.0)


@triton.jit
def _score(x, token, origin, inverse, top, threshold, last, near, mass):
    """What a token is drawn by before noise, -inf for what is not drawn, less the most that one can have."""
    z = (x - origin) * inverse
    score = z - top
    if near >= 0.0:
        score = near_score(tl.exp(z - top), mass, near) - _HIGHEST_NEAR_SCORE
    return tl.where(stays(z, token, threshold, last), score, float("-inf"))


@triton.jit(do_not_specialize=["x_stride", "rows"], do_not_specialize_on_alignment=ROW_PARAMETERS)
def processed_kernel(
    x_ptr, x_stride, rows, tops_ptr, measures_ptr, temperature_ptr, thresholds_ptr, lasts_ptr, near_ptr, masses_ptr,
    targets_ptr, wanted_ptr, tokens_ptr, top_ids_ptr, out_ptr, V: tl.constexpr, BLOCK: tl.constexpr,
    ENTRIES: tl.constexpr,
):  # fmt: skip
    """Of the rows that ask: log-probabilities of the drawn token and of the likeliest ones after all truncations."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(tokens_ptr + row)
    log_mass = tl.load(measures_ptr + _LOG_MASS * rows + row)
    if (tl.load(wanted_ptr + row) == 0) | (tl.load(targets_ptr + row) >= 0) | (token < 0) | (log_mass != log_mass):
        return
    entry = tl.arange(0, ENTRIES)
    ids = tl.load(top_ids_ptr + row * _TOP + entry - 1, mask=(entry > 0) & (entry <= _TOP), other=-1)
    ids = tl.where(entry == 0, token, ids)
    place = out_ptr + row * (1 + _TOP) + entry
    temperature = tl.load(temperature_ptr + row)
    if temperature == 0.0:
        tl.store(place, tl.where(ids == token, 0.0, float("-inf")), mask=entry <= _TOP)
        return
    largest = tl.load(tops_ptr + row)
    origin, inverse = scale(largest, temperature)
    top = (largest - origin) * inverse
    threshold, last = tl.load(thresholds_ptr + row), tl.load(lasts_ptr + row)
    near, mass = tl.load(near_ptr + row), tl.load(masses_ptr + row)
    x_row = x_ptr + row * x_stride
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, V, BLOCK):
        block = start + tl.arange(0, BLOCK)
        x = tl.load(x_row + block, mask=block < V, other=float("-inf")).to(tl.float32)
        total += tl.exp(_score(x, block, origin, inverse, top, threshold, last, near, mass))
    normaliser = tl.log(tl.sum(total, 0))
    x = tl.load(x_row + ids, mask=ids >= 0, other=float("-inf")).to(tl.float32)
    score = _score(x, ids, origin, inverse, top, threshold, last, near, mass)
    tl.store(place, score - normaliser, mask=entry <= _TOP)
