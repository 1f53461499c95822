"""Statistics of rows on a GPU: launches over (row, vocabulary tile), each followed by one over rows that merges the
tiles.

1. measures of each tile of raw logits, merged into the row's maximum, mass, entropy and the 20th largest tile maximum:
   no smaller logit can be among the 20 largest, so few tiles need to give up any;
2. the largest logits of those tiles, merged into the row's 20, and the measures that they give.

The logits are read once, and those few tiles once more. Reductions run in a fixed order and rows never meet.
"""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ift_kernels.float_keys import LOWEST_KEY, key_of, token_of, value_of
from ift_kernels.row_statistics.types import ENTROPY, LARGEST, LOG_MASS, MEAN_TOP, MEASURES, P1, P2, TOP, RowStatistics

_TILE = 2048
_LARGEST, _LOG_MASS, _ENTROPY = tl.constexpr(LARGEST), tl.constexpr(LOG_MASS), tl.constexpr(ENTROPY)
_P1, _P2, _MEAN_TOP = tl.constexpr(P1), tl.constexpr(P2), tl.constexpr(MEAN_TOP)


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


@triton.jit(do_not_specialize=["rows"])
def _row_statistics_kernel(
    parts_ptr, measures_ptr, rows, floors_ptr, TILES: tl.constexpr, PADDED: tl.constexpr, TOP: tl.constexpr
):
    """The row's maximum, log mass and entropy, and as its floor the TOP-th largest tile maximum (-inf with fewer)."""
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
    log_mass = tl.where(total > 0.0, tl.log(total), float("nan"))
    floor = tl.full((), float("-inf"), tl.float32)
    if TILES >= TOP:
        keys = tl.where(inside, key_of(tops, tile), LOWEST_KEY)
        last = tl.max(keys, 0)
        for _ in range(TOP - 1):
            last = tl.max(tl.where(keys < last, keys, LOWEST_KEY), 0)
        floor = value_of(last)
    tl.store(measures_ptr + _LARGEST * rows + row, top)
    tl.store(measures_ptr + _LOG_MASS * rows + row, log_mass)
    tl.store(measures_ptr + _ENTROPY * rows + row, log_mass - mean)
    tl.store(floors_ptr + row, floor)


@triton.jit(do_not_specialize=["stride"])
def _tile_top_kernel(
    logits_ptr,
    stride,
    parts_ptr,
    floors_ptr,
    keys_ptr,
    V: tl.constexpr,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    TOP: tl.constexpr,
):
    """keys[row, tile] = the tile's largest logits that are at least the row's floor, then the lowest key."""
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    floor = tl.load(floors_ptr + row)
    if tl.load(parts_ptr + row * 3 * TILES + tile) < floor:
        return
    token = tile * TILE + tl.arange(0, TILE)
    x = tl.load(logits_ptr + row * stride + token, mask=token < V, other=float("-inf")).to(tl.float32)
    keys = tl.where((token < V) & (x >= floor) & (x > float("-inf")), key_of(x, token), LOWEST_KEY)
    place = keys_ptr + (row * TILES + tile) * TOP
    last = tl.max(keys, 0)
    found = 0
    while (found < TOP) & (last > LOWEST_KEY):
        tl.store(place + found, last)
        last = tl.max(tl.where(keys < last, keys, LOWEST_KEY), 0)
        found += 1


@triton.jit(do_not_specialize=["rows"])
def _row_top_kernel(
    measures_ptr, rows, keys_ptr, ids_ptr, log_probs_ptr, ENTRIES: tl.constexpr, PADDED: tl.constexpr, TOP: tl.constexpr
):
    """The TOP largest of the row's candidates with their log-probabilities, and the measures of them."""
    row = tl.program_id(0).to(tl.int64)
    entry = tl.arange(0, PADDED)
    keys = tl.load(keys_ptr + row * ENTRIES + entry, mask=entry < ENTRIES, other=LOWEST_KEY)
    top = tl.load(measures_ptr + _LARGEST * rows + row)
    log_mass = tl.load(measures_ptr + _LOG_MASS * rows + row)
    last = tl.max(keys, 0)
    mean, found = tl.zeros((), tl.float32), tl.zeros((), tl.float32)
    for place in range(TOP):
        there = last > LOWEST_KEY
        log_prob = tl.where(there, value_of(last) - top - log_mass, float("-inf"))
        tl.store(ids_ptr + row * TOP + place, tl.where(there, token_of(last), -1))
        tl.store(log_probs_ptr + row * TOP + place, log_prob)
        if place == 0:
            # Of a row without a distribution no key may be there; its mass says so.
            tl.store(measures_ptr + _P1 * rows + row, tl.exp(tl.where(there, log_prob, log_mass)))
        if place == 1:
            tl.store(measures_ptr + _P2 * rows + row, tl.exp(tl.where(log_mass == log_mass, log_prob, log_mass)))
        # A share of each: exact, and twenty of the lowest do not overflow.
        mean += tl.where(there, log_prob * 0.03125, 0.0)
        found += tl.where(there, 0.03125, 0.0)
        last = tl.max(tl.where(keys < last, keys, LOWEST_KEY), 0)
    tl.store(measures_ptr + _MEAN_TOP * rows + row, tl.where(log_mass == log_mass, mean / found, log_mass))


def row_statistics_triton(logits: Tensor) -> RowStatistics:
    """See :func:`ift_kernels.row_statistics.row_statistics`. logits may be float16 too; rows may be strided."""
    rows, size = logits.shape
    device, tiles = logits.device, triton.cdiv(size, _TILE)
    parts = torch.empty((rows, 3, tiles), dtype=torch.float32, device=device)
    measures = torch.empty((MEASURES, rows), dtype=torch.float32, device=device)
    floors = torch.empty(rows, dtype=torch.float32, device=device)
    keys = torch.full((rows, tiles, TOP), LOWEST_KEY.value, dtype=torch.int64, device=device)
    ids = torch.empty((rows, TOP), dtype=torch.int32, device=device)
    log_probs = torch.empty((rows, TOP), dtype=torch.float32, device=device)
    padded = triton.next_power_of_2(tiles)
    entries = triton.next_power_of_2(tiles * TOP)
    shape = {"V": size, "TILES": tiles, "TILE": _TILE}
    _tile_statistics_kernel[(rows, tiles)](logits, logits.stride(0), parts, **shape, num_warps=4)
    _row_statistics_kernel[(rows,)](parts, measures, rows, floors, TILES=tiles, PADDED=padded, TOP=TOP, num_warps=1)
    _tile_top_kernel[(rows, tiles)](logits, logits.stride(0), parts, floors, keys, **shape, TOP=TOP, num_warps=4)
    _row_top_kernel[(rows,)](
        measures,
        rows,
        keys,
        ids,
        log_probs,
        ENTRIES=tiles * TOP,
        PADDED=entries,
        TOP=TOP,
        num_warps=8 if entries > 512 else 4,
    )
    return RowStatistics(measures, ids, log_probs)
