"""Sampling on a GPU: launches over (row, vocabulary tile), each followed by one over rows that merges the tiles.

1. statistics of each tile of raw logits, merged into the row's maximum, mass, entropy and the 20th largest tile
   maximum: no smaller logit can be among the 20 largest, so few tiles need to give up any;
2. the largest logits of those tiles, merged into the row's 20;
3. where rows truncate, their thresholds, by four-way bisection over the ordered integers of the floats;
4. the Gumbel-max of each tile, merged into the token.

Reductions run in a fixed order and rows never meet, so a row draws the same token in any batch.
"""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ift_kernels.sample_rows.api import TOP, RowParameters, SampledRows, SparseAdjustments
from ift_kernels.sample_rows.gumbel import gumbel

_TILE = 2048
_ROW_PARAMETERS = [
    "temperature_ptr", "top_p_ptr", "min_p_ptr", "top_k_ptr", "targets_ptr", "thresholds_ptr", "seeds_ptr", "steps_ptr",
]  # fmt: skip
_LOWEST = tl.constexpr(-9223372036854775807)
_SMALLEST = tl.constexpr(1.17549435e-38)
_LARGEST = tl.constexpr(3.4028234e38)
_FAR = tl.constexpr(2.0**100)


@triton.jit
def _ordered(x):
    """An int32 that orders like the float32 x; both zeros are one."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _from_ordered(order):
    return (order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _key(x, token):
    """An int64 that orders by value, then by smaller token id."""
    return (_ordered(x).to(tl.int64) << 32) | (0x7FFFFFFF - token).to(tl.int64)


@triton.jit
def _token_of(key):
    return 0x7FFFFFFF - (key & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def _value_of(key):
    return _from_ordered((key >> 32).to(tl.int32))


@triton.jit(do_not_specialize=["stride"])
def _tile_statistics_kernel(logits_ptr, stride, parts_ptr, V: tl.constexpr, TILES: tl.constexpr, TILE: tl.constexpr):
    """parts[row, :, tile] = maximum, sum of exp(x - max), sum of (x - max) exp(x - max)."""
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = tile * TILE + tl.arange(0, TILE)
    x = tl.load(logits_ptr + row * stride + token, mask=token < V, other=float("-inf")).to(tl.float32)
    top = tl.max(x, 0)
    shifted = tl.maximum(x - tl.where(top == float("-inf"), 0.0, top), -100.0)
    e = tl.where(x == float("-inf"), 0.0, tl.exp(shifted))
    # The maximum above hides a NaN; here it reaches all of the row's statistics.
    e = tl.where((x != x) | (x == float("inf")), float("nan"), e)
    place = parts_ptr + row * 3 * TILES + tile
    tl.store(place, top)
    tl.store(place + TILES, tl.sum(e, 0))
    tl.store(place + 2 * TILES, tl.sum(e * shifted, 0))


@triton.jit
def _row_statistics_kernel(parts_ptr, rows_ptr, TILES: tl.constexpr, PADDED: tl.constexpr, TOP: tl.constexpr):
    """rows[row] = maximum, log mass, entropy, the TOP-th largest tile maximum (-inf with fewer tiles)."""
    row = tl.program_id(0).to(tl.int64)
    tile = tl.arange(0, PADDED)
    inside = tile < TILES
    place = parts_ptr + row * 3 * TILES + tile
    tops = tl.load(place, mask=inside, other=float("-inf"))
    top = tl.max(tops, 0)
    distance = tl.where(tops == float("-inf"), 0.0, tl.maximum(tops - top, -100.0))
    scale = tl.where(tops == float("-inf"), 0.0, tl.exp(distance))
    mass = tl.load(place + TILES, mask=inside, other=0.0)
    moment = tl.load(place + 2 * TILES, mask=inside, other=0.0)
    total = tl.sum(scale * mass, 0)
    mean = tl.sum(scale * (moment + distance * mass), 0) / total
    log_mass = tl.log(total)
    floor = tl.full((), float("-inf"), tl.float32)
    if TILES >= TOP:
        keys = tl.where(inside, _key(tops, tile), _LOWEST)
        last = tl.max(keys, 0)
        for _ in range(TOP - 1):
            last = tl.max(tl.where(keys < last, keys, _LOWEST), 0)
        floor = _value_of(last)
    tl.store(rows_ptr + row * 4, top)
    tl.store(rows_ptr + row * 4 + 1, log_mass)
    tl.store(rows_ptr + row * 4 + 2, log_mass - mean)
    tl.store(rows_ptr + row * 4 + 3, floor)


@triton.jit(do_not_specialize=["stride"])
def _tile_top_kernel(
    logits_ptr, stride, parts_ptr, rows_ptr, keys_ptr,
    V: tl.constexpr, TILES: tl.constexpr, TILE: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    """keys[row, tile] = the tile's largest logits that are at least the row's floor, then the lowest key."""
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    floor = tl.load(rows_ptr + row * 4 + 3)
    if tl.load(parts_ptr + row * 3 * TILES + tile) < floor:
        return
    token = tile * TILE + tl.arange(0, TILE)
    x = tl.load(logits_ptr + row * stride + token, mask=token < V, other=float("-inf")).to(tl.float32)
    keys = tl.where((token < V) & (x >= floor) & (x > float("-inf")), _key(x, token), _LOWEST)
    place = keys_ptr + (row * TILES + tile) * TOP
    last = tl.max(keys, 0)
    found = 0
    while (found < TOP) & (last > _LOWEST):
        tl.store(place + found, last)
        last = tl.max(tl.where(keys < last, keys, _LOWEST), 0)
        found += 1


@triton.jit
def _row_top_kernel(
    rows_ptr, keys_ptr, ids_ptr, log_probs_ptr,
    ENTRIES: tl.constexpr, PADDED: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    """The TOP largest of the row's candidates, with their log-probabilities."""
    row = tl.program_id(0).to(tl.int64)
    entry = tl.arange(0, PADDED)
    keys = tl.load(keys_ptr + row * ENTRIES + entry, mask=entry < ENTRIES, other=_LOWEST)
    top, log_mass = tl.load(rows_ptr + row * 4), tl.load(rows_ptr + row * 4 + 1)
    last = tl.max(keys, 0)
    for place in range(TOP):
        there = last > _LOWEST
        log_prob = tl.where(there, _value_of(last) - top - log_mass, float("-inf"))
        tl.store(ids_ptr + row * TOP + place, tl.where(there, _token_of(last), -1))
        tl.store(log_probs_ptr + row * TOP + place, log_prob)
        last = tl.max(tl.where(keys < last, keys, _LOWEST), 0)


@triton.jit(do_not_specialize_on_alignment=["offsets_ptr", "ids_ptr", "generated_ptr", "bias_ptr"])
def _adjust_kernel(
    x_ptr, offsets_ptr, ids_ptr, generated_ptr, bias_ptr, repetition_ptr, presence_ptr, frequency_ptr,
    V: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Bias and penalties on the few logits of a row that have any, in place. x: ``[R, V]`` float32."""
    row = tl.program_id(0).to(tl.int64)
    first, end = tl.load(offsets_ptr + row), tl.load(offsets_ptr + row + 1)
    repetition = tl.load(repetition_ptr + row)
    presence, frequency = tl.load(presence_ptr + row), tl.load(frequency_ptr + row)
    for start in range(first, end, BLOCK):
        entry = start + tl.arange(0, BLOCK)
        inside = entry < end
        place = x_ptr + row * V + tl.load(ids_ptr + entry, mask=inside, other=0)
        generated = tl.load(generated_ptr + entry, mask=inside, other=0)
        x = tl.load(place, mask=inside, other=0.0) + tl.load(bias_ptr + entry, mask=inside, other=0.0)
        penalised = tl.where(x > 0, tl.div_rn(x, repetition + tl.zeros_like(x)), x * repetition)
        penalised -= frequency * generated.to(tl.float32)
        penalised -= tl.where(generated > 0, presence, 0.0)
        tl.store(place, tl.minimum(tl.where(generated >= 0, penalised, x), _LARGEST), mask=inside)


@triton.jit
def _scale(top, temperature):
    """What is subtracted from a row's logits, and what they are then multiplied by.

    Far out, the largest logit becomes the zero of the row, so that nothing overflows but what is never drawn.
    """
    inverse = tl.div_rn(tl.full((), 1.0, tl.float32), tl.maximum(temperature, _SMALLEST))
    return tl.where(tl.abs(top) * inverse < _FAR, 0.0, top), inverse


@triton.jit
def _masses(x_row, origin, inverse, top, limit, p1, p2, p3, COUNT: tl.constexpr, V: tl.constexpr, BLOCK: tl.constexpr):
    """How many tempered logits, or how much mass of those at least ``limit``, reach each of three pivots."""
    s1, s2, s3 = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, V, BLOCK):
        token = start + tl.arange(0, BLOCK)
        z = (tl.load(x_row + token, mask=token < V, other=float("-inf")).to(tl.float32) - origin) * inverse
        weight = tl.where(z >= limit, 1.0 if COUNT else tl.exp(z - top), 0.0)
        s1 += tl.where(z >= p1, weight, 0.0)
        s2 += tl.where(z >= p2, weight, 0.0)
        s3 += tl.where(z >= p3, weight, 0.0)
    return tl.sum(s1, 0), tl.sum(s2, 0), tl.sum(s3, 0)


@triton.jit
def _bisect(x_row, origin, inverse, top, limit, wanted, COUNT: tl.constexpr, V: tl.constexpr, BLOCK: tl.constexpr):
    """The largest threshold that at least ``wanted`` of the count or mass reaches (top-p keeps ties with it)."""
    low, high = _ordered(tl.full((), -3.4e38, tl.float32)).to(tl.int64), _ordered(top).to(tl.int64)
    while low < high:
        quarter = (high - low + 3) // 4
        o1 = tl.minimum(low + quarter, high)
        o2 = tl.minimum(low + 2 * quarter, high)
        o3 = tl.minimum(low + 3 * quarter, high)
        p1, p2 = _from_ordered(o1.to(tl.int32)), _from_ordered(o2.to(tl.int32))
        p3 = _from_ordered(o3.to(tl.int32))
        s1, s2, s3 = _masses(x_row, origin, inverse, top, limit, p1, p2, p3, COUNT, V, BLOCK)
        new_low = tl.where(s3 >= wanted, o3, tl.where(s2 >= wanted, o2, tl.where(s1 >= wanted, o1, low)))
        new_high = tl.where(s1 < wanted, o1 - 1, tl.where(s2 < wanted, o2 - 1, tl.where(s3 < wanted, o3 - 1, high)))
        low, high = new_low, new_high
    return _from_ordered(low.to(tl.int32))


@triton.jit(do_not_specialize=["stride"], do_not_specialize_on_alignment=_ROW_PARAMETERS)
def _threshold_kernel(
    x_ptr, stride, tops_ptr, temperature_ptr, top_p_ptr, min_p_ptr, top_k_ptr, targets_ptr, thresholds_ptr,
    V: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The smallest tempered logit that top-k, top-p and min-p let stay."""
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(temperature_ptr + row)
    top_k, top_p, min_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row), tl.load(min_p_ptr + row)
    truncates = ((top_k > 0) & (top_k < V)) | (top_p < 1.0) | (min_p > 0.0)
    if (temperature == 0.0) | (tl.load(targets_ptr + row) >= 0) | (not truncates):
        tl.store(thresholds_ptr + row, tl.full((), -3.4e38, tl.float32))
        return
    largest = tl.load(tops_ptr + row * 4)
    origin, inverse = _scale(largest, temperature)
    x_row = x_ptr + row * stride
    top = (largest - origin) * inverse
    threshold = tl.full((), -3.4e38, tl.float32)
    if (top_k > 0) & (top_k < V):
        threshold = _bisect(x_row, origin, inverse, top, threshold, top_k.to(tl.float32), True, V, BLOCK)
    if top_p < 1.0:
        total, _, _ = _masses(x_row, origin, inverse, top, threshold, threshold, top, top, False, V, BLOCK)
        wanted = top_p * total
        threshold = tl.maximum(threshold, _bisect(x_row, origin, inverse, top, threshold, wanted, False, V, BLOCK))
    if min_p > 0.0:
        threshold = tl.maximum(threshold, top + tl.log(min_p))
    tl.store(thresholds_ptr + row, threshold)


@triton.jit(do_not_specialize=["stride"], do_not_specialize_on_alignment=_ROW_PARAMETERS)
def _tile_draw_kernel(
    x_ptr, stride, tops_ptr, temperature_ptr, thresholds_ptr, seeds_ptr, steps_ptr, best_ptr,
    V: tl.constexpr, TILES: tl.constexpr, TILE: tl.constexpr, TRUNCATED: tl.constexpr,
):  # fmt: skip
    """best[row, tile] = key of the largest tempered logit plus Gumbel noise; without noise at temperature 0."""
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = tile * TILE + tl.arange(0, TILE)
    x = tl.load(x_ptr + row * stride + token, mask=token < V, other=float("-inf")).to(tl.float32)
    temperature = tl.load(temperature_ptr + row)
    score = x
    if temperature > 0.0:
        origin, inverse = _scale(tl.load(tops_ptr + row * 4), temperature)
        z = (x - origin) * inverse
        score = z + gumbel(token, tl.load(seeds_ptr + row), tl.load(steps_ptr + row))
        if TRUNCATED:
            score = tl.where(z >= tl.load(thresholds_ptr + row), score, float("-inf"))
    keys = tl.where(token < V, _key(score, token), _LOWEST)
    tl.store(best_ptr + row * TILES + tile, tl.max(keys, 0))


@triton.jit(do_not_specialize=["stride"], do_not_specialize_on_alignment=_ROW_PARAMETERS)
def _row_draw_kernel(
    logits_ptr, stride, best_ptr, rows_ptr, ids_ptr, log_probs_ptr, targets_ptr, tokens_ptr, statistics_ptr,
    V: tl.constexpr, TILES: tl.constexpr, PADDED: tl.constexpr, TOP: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    """The token of the row, and its statistics from the raw logits."""
    row = tl.program_id(0).to(tl.int64)
    tile = tl.arange(0, PADDED)
    best = tl.max(tl.load(best_ptr + row * TILES + tile, mask=tile < TILES, other=_LOWEST), 0)
    target = tl.load(targets_ptr + row)
    token = tl.where(target >= 0, target, tl.minimum(_token_of(best), V - 1))
    raw = tl.load(logits_ptr + row * stride + token).to(tl.float32)
    place = tl.arange(0, 32)
    there = tl.load(ids_ptr + row * TOP + place, mask=place < KEPT, other=-1) >= 0
    top = tl.load(log_probs_ptr + row * TOP + place, mask=place < KEPT, other=0.0)
    second = tl.sum(tl.where(place == 1, top, 0.0), 0)
    out = statistics_ptr + row * 5
    tl.store(tokens_ptr + row, token)
    tl.store(out, raw - tl.load(rows_ptr + row * 4) - tl.load(rows_ptr + row * 4 + 1))
    tl.store(out + 1, tl.exp(tl.sum(tl.where(place == 0, top, 0.0), 0)))
    tl.store(out + 2, tl.exp(second) if KEPT > 1 else 0.0)
    tl.store(out + 3, tl.load(rows_ptr + row * 4 + 2))
    # A share of each: exact, and twenty of the lowest do not overflow.
    mean = tl.sum(tl.where(there, top * 0.03125, 0.0), 0) / tl.sum(tl.where(there, 0.03125, 0.0), 0)
    tl.store(out + 4, mean)


def _adjusted(logits: Tensor, adjustments: SparseAdjustments) -> Tensor:
    """A float32 copy with bias and penalties; statistics still need the raw logits."""
    result = logits.float() if logits.dtype != torch.float32 else logits.clone()
    result = result.contiguous()
    _adjust_kernel[(result.shape[0],)](
        result, adjustments.offsets, adjustments.token_ids, adjustments.generated, adjustments.bias,
        adjustments.repetition, adjustments.presence, adjustments.frequency, V=result.shape[1], BLOCK=256,
        num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return result


def _raw_statistics(logits: Tensor, tiles: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per row ``[R, 4]`` maximum, log mass, entropy, floor; ids and log-probabilities of the largest."""
    rows, size = logits.shape
    device = logits.device
    parts = torch.empty((rows, 3, tiles), dtype=torch.float32, device=device)
    merged = torch.empty((rows, 4), dtype=torch.float32, device=device)
    keys = torch.full((rows, tiles, TOP), _LOWEST.value, dtype=torch.int64, device=device)
    ids = torch.empty((rows, TOP), dtype=torch.int32, device=device)
    log_probs = torch.empty((rows, TOP), dtype=torch.float32, device=device)
    padded = triton.next_power_of_2(tiles)
    entries = triton.next_power_of_2(tiles * TOP)
    shape = {"V": size, "TILES": tiles, "TILE": _TILE}
    _tile_statistics_kernel[(rows, tiles)](logits, logits.stride(0), parts, **shape, num_warps=4)
    _row_statistics_kernel[(rows,)](parts, merged, TILES=tiles, PADDED=padded, TOP=TOP, num_warps=1)
    _tile_top_kernel[(rows, tiles)](logits, logits.stride(0), parts, merged, keys, **shape, TOP=TOP, num_warps=4)
    _row_top_kernel[(rows,)](
        merged, keys, ids, log_probs, ENTRIES=tiles * TOP, PADDED=entries, TOP=TOP, num_warps=8 if entries > 512 else 4
    )
    return merged, ids, log_probs


def sample_rows_triton(logits: Tensor, parameters: RowParameters) -> SampledRows:
    """See :func:`ift_kernels.sample_rows.sample_rows`. logits may be float16 too; rows may be strided."""
    rows, size = logits.shape
    device = logits.device
    tiles = triton.cdiv(size, _TILE)
    merged, ids, log_probs = _raw_statistics(logits, tiles)
    drawn_from = logits if parameters.adjustments is None else _adjusted(logits, parameters.adjustments)
    tops = merged
    if parameters.adjustments is not None:
        tops = merged.clone()
        tops[:, 0] = drawn_from.amax(1)
    thresholds = torch.empty(rows, dtype=torch.float32, device=device)
    if parameters.truncated:
        _threshold_kernel[(rows,)](
            drawn_from, drawn_from.stride(0), tops, parameters.temperature, parameters.top_p, parameters.min_p,
            parameters.top_k, parameters.targets, thresholds, V=size, BLOCK=4096, num_warps=8,
        )  # fmt: skip
    best = torch.empty((rows, tiles), dtype=torch.int64, device=device)
    # Fusing the division by the temperature into the sum with the noise would round unlike the CPU.
    _tile_draw_kernel[(rows, tiles)](
        drawn_from, drawn_from.stride(0), tops, parameters.temperature, thresholds, parameters.seeds, parameters.steps,
        best, V=size, TILES=tiles, TILE=_TILE, TRUNCATED=parameters.truncated, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    tokens = torch.empty(rows, dtype=torch.int32, device=device)
    statistics = torch.empty((rows, 5), dtype=torch.float32, device=device)
    _row_draw_kernel[(rows,)](
        logits, logits.stride(0), best, merged, ids, log_probs, parameters.targets, tokens, statistics,
        V=size, TILES=tiles, PADDED=triton.next_power_of_2(tiles), TOP=TOP, KEPT=min(TOP, size), num_warps=1,
    )  # fmt: skip
    return SampledRows(tokens, statistics, ids, log_probs)
