"""Drawing on a GPU: launches over (row, vocabulary tile) or rows.

1. where rows have biases, penalties or masks, a float32 copy of the logits with those;
2. where rows truncate, their thresholds, by four-way bisection over the ordered integers of the floats, and the mass
   that stays;
3. the Gumbel-max of each tile, merged into the token.

Reductions run in a fixed order and rows never meet, so a row draws the same token in any batch.
"""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ift_kernels.float_keys import LOWEST_KEY, from_ordered, key_of, ordered, token_of
from ift_kernels.row_statistics.types import LARGEST, LOG_MASS, P1, RowStatistics
from ift_kernels.sample_rows.gumbel import gumbel
from ift_kernels.sample_rows.types import RowParameters, SampledRows, SparseAdjustments, TokenMasks

_TILE = 2048
_ROW_PARAMETERS = [
    "temperature_ptr", "top_p_ptr", "min_p_ptr", "top_k_ptr", "targets_ptr", "thresholds_ptr", "seeds_ptr", "steps_ptr",
    "sigma_ptr", "p_less_ptr", "near_ptr", "masses_ptr", "tops_ptr", "probabilities_ptr",
]  # fmt: skip
_SMALLEST = tl.constexpr(1.17549435e-38)
_LARGEST = tl.constexpr(3.4028234e38)
_LEAST = tl.constexpr(-3.4028235e38)
_FAR = tl.constexpr(2.0**100)
_FIRST_MEASURE = tl.constexpr(P1)
_LOG_MASS = tl.constexpr(LOG_MASS)
_TOP_MEASURE = tl.constexpr(LARGEST)


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


@triton.jit(do_not_specialize_on_alignment=["bits_ptr", "of_row_ptr"])
def _mask_kernel(x_ptr, bits_ptr, of_row_ptr, V: tl.constexpr, WORDS: tl.constexpr, TILE: tl.constexpr):
    """-inf for what a row's mask does not allow, in place. x: ``[R, V]`` float32."""
    row = tl.program_id(0).to(tl.int64)
    mask = tl.load(of_row_ptr + row).to(tl.int64)
    if mask < 0:
        return
    token = tl.program_id(1) * TILE + tl.arange(0, TILE)
    word = tl.load(bits_ptr + mask * WORDS + token // 32, mask=token < V, other=-1)
    tl.store(x_ptr + row * V + token, float("-inf"), mask=(token < V) & (((word >> (token % 32)) & 1) == 0))


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
    low, high = ordered(tl.full((), -3.4e38, tl.float32)).to(tl.int64), ordered(top).to(tl.int64)
    while low < high:
        quarter = (high - low + 3) // 4
        o1 = tl.minimum(low + quarter, high)
        o2 = tl.minimum(low + 2 * quarter, high)
        o3 = tl.minimum(low + 3 * quarter, high)
        p1, p2 = from_ordered(o1.to(tl.int32)), from_ordered(o2.to(tl.int32))
        p3 = from_ordered(o3.to(tl.int32))
        s1, s2, s3 = _masses(x_row, origin, inverse, top, limit, p1, p2, p3, COUNT, V, BLOCK)
        new_low = tl.where(s3 >= wanted, o3, tl.where(s2 >= wanted, o2, tl.where(s1 >= wanted, o1, low)))
        new_high = tl.where(s1 < wanted, o1 - 1, tl.where(s2 < wanted, o2 - 1, tl.where(s3 < wanted, o3 - 1, high)))
        low, high = new_low, new_high
    return from_ordered(low.to(tl.int32))


@triton.jit
def _sigma_threshold(x_row, largest, n, V: tl.constexpr, BLOCK: tl.constexpr):
    """``largest - n sigma`` of untempered logits, sigma being the standard deviation of those that are not -inf."""
    deepest = tl.full([BLOCK], _LEAST, tl.float32)
    for start in range(0, V, BLOCK):
        token = start + tl.arange(0, BLOCK)
        x = tl.load(x_row + token, mask=token < V, other=float("-inf")).to(tl.float32)
        deepest = tl.maximum(deepest, tl.where(x >= _LEAST, 0.0 - x, _LEAST))
    half = 0.5 * largest + 0.5 * tl.max(deepest, 0)
    # Differences are measured in their own size, or the squares of large ones would overflow, of small ones vanish.
    exponent = tl.minimum(tl.maximum((half.to(tl.int32, bitcast=True) >> 23) - 127, -120), 120)
    scale = ((127 - exponent) << 23).to(tl.float32, bitcast=True)
    count, total = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, V, BLOCK):
        token = start + tl.arange(0, BLOCK)
        x = tl.load(x_row + token, mask=token < V, other=float("-inf")).to(tl.float32)
        count += tl.where(x >= _LEAST, 1.0, 0.0)
        total += tl.where(x >= _LEAST, x * scale - largest * scale, 0.0)
    possible = tl.sum(count, 0)
    mean = tl.sum(total, 0) / possible
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, V, BLOCK):
        token = start + tl.arange(0, BLOCK)
        x = tl.load(x_row + token, mask=token < V, other=float("-inf")).to(tl.float32)
        distance = tl.where(x >= _LEAST, x * scale - largest * scale - mean, 0.0)
        squares += distance * distance
    return tl.where(half > 0.0, largest - n * tl.sqrt(tl.sum(squares, 0) / possible) / scale, largest)


@triton.jit
def _mass_and_squares(x_row, origin, inverse, top, limit, V: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of ``exp(z - top)`` of the tempered logits that reach ``limit``, and of its square."""
    total, squares = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, V, BLOCK):
        token = start + tl.arange(0, BLOCK)
        z = (tl.load(x_row + token, mask=token < V, other=float("-inf")).to(tl.float32) - origin) * inverse
        weight = tl.where(z >= limit, tl.exp(z - top), 0.0)
        total += weight
        squares += weight * weight
    return tl.sum(total, 0), tl.sum(squares, 0)


@triton.jit(do_not_specialize=["stride"], do_not_specialize_on_alignment=_ROW_PARAMETERS)
def _threshold_kernel(
    x_ptr, stride, tops_ptr, temperature_ptr, top_p_ptr, min_p_ptr, top_k_ptr, targets_ptr, sigma_ptr, p_less_ptr,
    near_ptr, thresholds_ptr, masses_ptr, V: tl.constexpr, BLOCK: tl.constexpr, SHAPED: tl.constexpr,
):  # fmt: skip
    """The smallest tempered logit that stays; with SHAPED for adaptive-p also the mass of what stays."""
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(temperature_ptr + row)
    top_k, top_p, min_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row), tl.load(min_p_ptr + row)
    truncates = ((top_k > 0) & (top_k < V)) | (top_p < 1.0) | (min_p > 0.0)
    sigma, p_less, near = 0.0, 0.0, -1.0
    if SHAPED:
        sigma, p_less, near = tl.load(sigma_ptr + row), tl.load(p_less_ptr + row), tl.load(near_ptr + row)
        truncates = truncates | (sigma > 0.0) | (p_less > 0.0) | (near >= 0.0)
    if (temperature == 0.0) | (tl.load(targets_ptr + row) >= 0) | (not truncates):
        tl.store(thresholds_ptr + row, tl.full((), -3.4e38, tl.float32))
        return
    largest = tl.load(tops_ptr + row)
    origin, inverse = _scale(largest, temperature)
    x_row = x_ptr + row * stride
    top = (largest - origin) * inverse
    threshold = tl.full((), -3.4e38, tl.float32)
    if sigma > 0.0:
        threshold = tl.maximum(threshold, (_sigma_threshold(x_row, largest, sigma, V, BLOCK) - origin) * inverse)
    if (top_k > 0) & (top_k < V):
        counted = _bisect(x_row, origin, inverse, top, threshold, top_k.to(tl.float32), True, V, BLOCK)
        threshold = tl.maximum(threshold, counted)
    if top_p < 1.0:
        total, _, _ = _masses(x_row, origin, inverse, top, threshold, threshold, top, top, False, V, BLOCK)
        wanted = top_p * total
        threshold = tl.maximum(threshold, _bisect(x_row, origin, inverse, top, threshold, wanted, False, V, BLOCK))
    if min_p > 0.0:
        threshold = tl.maximum(threshold, top + tl.log(min_p))
    if SHAPED:
        if p_less > 0.0:
            total, squares = _mass_and_squares(x_row, origin, inverse, top, threshold, V, BLOCK)
            threshold = tl.maximum(threshold, top + tl.log(squares / total))
        if near >= 0.0:
            total, squares = _mass_and_squares(x_row, origin, inverse, top, threshold, V, BLOCK)
            tl.store(masses_ptr + row, total)
    tl.store(thresholds_ptr + row, threshold)


@triton.jit
def _near_score(weight, mass, near):
    """adaptive-p: the score of a token that has ``weight`` of ``mass``."""
    distance = tl.abs(weight / mass - near) * (1.0 / 0.3)
    return 5.0 - 10.0 * distance * distance / (1.0 + distance)


@triton.jit(do_not_specialize=["stride"], do_not_specialize_on_alignment=_ROW_PARAMETERS)
def _tile_draw_kernel(
    x_ptr, stride, tops_ptr, temperature_ptr, thresholds_ptr, near_ptr, masses_ptr, seeds_ptr, steps_ptr, best_ptr,
    V: tl.constexpr, TILES: tl.constexpr, TILE: tl.constexpr, TRUNCATED: tl.constexpr, NEAR: tl.constexpr,
):  # fmt: skip
    """best[row, tile] = key of the largest tempered logit plus Gumbel noise; without noise at temperature 0."""
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = tile * TILE + tl.arange(0, TILE)
    x = tl.load(x_ptr + row * stride + token, mask=token < V, other=float("-inf")).to(tl.float32)
    temperature = tl.load(temperature_ptr + row)
    score = x
    if temperature > 0.0:
        largest = tl.load(tops_ptr + row)
        origin, inverse = _scale(largest, temperature)
        z = (x - origin) * inverse
        score = z
        if NEAR:
            near = tl.load(near_ptr + row)
            if near >= 0.0:
                score = _near_score(tl.exp(z - (largest - origin) * inverse), tl.load(masses_ptr + row), near)
        score += gumbel(token, tl.load(seeds_ptr + row), tl.load(steps_ptr + row))
        if TRUNCATED:
            score = tl.where(z >= tl.load(thresholds_ptr + row), score, float("-inf"))
    keys = tl.where(token < V, key_of(score, token), LOWEST_KEY)
    tl.store(best_ptr + row * TILES + tile, tl.max(keys, 0))


@triton.jit(do_not_specialize=["stride", "rows", "x_stride"], do_not_specialize_on_alignment=_ROW_PARAMETERS)
def _row_draw_kernel(
    logits_ptr, stride, rows, best_ptr, tops_ptr, measures_ptr, targets_ptr, tokens_ptr, statistics_ptr,
    x_ptr, x_stride, temperature_ptr, near_ptr, masses_ptr, probabilities_ptr,
    V: tl.constexpr, TILES: tl.constexpr, PADDED: tl.constexpr, NEAR: tl.constexpr,
):  # fmt: skip
    """The token of the row, -1 where its logits leave none, its statistics, and its probability before adaptive-p."""
    row = tl.program_id(0).to(tl.int64)
    tile = tl.arange(0, PADDED)
    best = tl.max(tl.load(best_ptr + row * TILES + tile, mask=tile < TILES, other=LOWEST_KEY), 0)
    target = tl.load(targets_ptr + row)
    log_mass = tl.load(measures_ptr + _LOG_MASS * rows + row)
    nothing = (target < 0) & (tl.load(tops_ptr + row) == float("-inf")) & (log_mass == log_mass)
    token = tl.where(target >= 0, target, tl.minimum(token_of(best), V - 1))
    raw = tl.load(logits_ptr + row * stride + token).to(tl.float32)
    log_prob = raw - tl.load(measures_ptr + _TOP_MEASURE * rows + row) - log_mass
    out = statistics_ptr + row * 5
    tl.store(tokens_ptr + row, tl.where(nothing, -1, token))
    tl.store(out, tl.where(nothing, float("nan"), log_prob))
    for i in tl.static_range(4):
        measure = tl.load(measures_ptr + (_FIRST_MEASURE + i) * rows + row)
        tl.store(out + 1 + i, tl.where(nothing, float("nan"), measure))
    if NEAR:
        temperature = tl.load(temperature_ptr + row)
        largest = tl.load(tops_ptr + row)
        origin, inverse = _scale(largest, temperature)
        x = tl.load(x_ptr + row * x_stride + token).to(tl.float32)
        weight = tl.exp((x - origin) * inverse - (largest - origin) * inverse)
        used = (target < 0) & (temperature > 0.0) & (tl.load(near_ptr + row) >= 0.0) & (not nothing)
        tl.store(probabilities_ptr + row, tl.where(used, weight / tl.load(masses_ptr + row), float("nan")))


def _changed(logits: Tensor, adjustments: SparseAdjustments | None, masks: TokenMasks | None) -> Tensor:
    """A float32 copy with biases, penalties and masks; statistics still need the raw logits."""
    result = logits.float() if logits.dtype != torch.float32 else logits.clone()
    result = result.contiguous()
    rows, size = result.shape
    if adjustments is not None:
        _adjust_kernel[(rows,)](
            result,
            adjustments.offsets,
            adjustments.token_ids,
            adjustments.generated,
            adjustments.bias,
            adjustments.repetition,
            adjustments.presence,
            adjustments.frequency,
            V=size,
            BLOCK=256,
            num_warps=4,
            enable_fp_fusion=False,
        )
    if masks is not None:
        _mask_kernel[(rows, triton.cdiv(size, _TILE))](
            result, masks.bits, masks.of_row, V=size, WORDS=masks.bits.shape[1], TILE=_TILE, num_warps=4
        )
    return result


def sample_rows_triton(logits: Tensor, parameters: RowParameters, known: RowStatistics) -> SampledRows:
    """See :func:`ift_kernels.sample_rows.sample_rows`. logits may be float16 too; rows may be strided."""
    p, shape = parameters, parameters.truncations
    if shape is not None and shape.top_h is not None:
        raise NotImplementedError("top_h is not done by the Triton kernels")
    rows, size = logits.shape
    device, tiles = logits.device, triton.cdiv(size, _TILE)
    changed = p.adjustments is not None or p.masks is not None
    drawn_from = _changed(logits, p.adjustments, p.masks) if changed else logits
    tops = drawn_from.amax(1) if changed else known.largest
    thresholds = torch.empty(rows, dtype=torch.float32, device=device)
    masses = torch.empty(rows, dtype=torch.float32, device=device)
    off = torch.zeros(rows, dtype=torch.float32, device=device) if shape is None else shape.p_less
    sigma = off if shape is None else shape.top_n_sigma
    near = torch.full_like(masses, -1.0) if p.near is None and shape is not None else p.near
    shaped = shape is not None or p.near is not None
    truncated = p.truncated or shaped
    if truncated:
        _threshold_kernel[(rows,)](
            drawn_from,
            drawn_from.stride(0),
            tops,
            p.temperature,
            p.top_p,
            p.min_p,
            p.top_k,
            p.targets,
            sigma,
            off,
            thresholds if near is None else near,
            thresholds,
            masses,
            V=size,
            BLOCK=4096,
            SHAPED=shaped,
            num_warps=8,
        )
    best = torch.empty((rows, tiles), dtype=torch.int64, device=device)
    # Fusing the division by the temperature into the sum with the noise would round unlike the CPU.
    _tile_draw_kernel[(rows, tiles)](
        drawn_from,
        drawn_from.stride(0),
        tops,
        p.temperature,
        thresholds,
        thresholds if near is None else near,
        masses,
        p.seeds,
        p.steps,
        best,
        V=size,
        TILES=tiles,
        TILE=_TILE,
        TRUNCATED=truncated,
        NEAR=p.near is not None,
        num_warps=4,
        enable_fp_fusion=False,
    )
    tokens = torch.empty(rows, dtype=torch.int32, device=device)
    statistics = torch.empty((rows, 5), dtype=torch.float32, device=device)
    probabilities = None if p.near is None else torch.empty_like(masses)
    _row_draw_kernel[(rows,)](
        logits,
        logits.stride(0),
        rows,
        best,
        tops,
        known.measures,
        p.targets,
        tokens,
        statistics,
        drawn_from,
        drawn_from.stride(0),
        p.temperature,
        thresholds if near is None else near,
        masses,
        masses if probabilities is None else probabilities,
        V=size,
        TILES=tiles,
        PADDED=triton.next_power_of_2(tiles),
        NEAR=p.near is not None,
        num_warps=1,
    )
    return SampledRows(tokens, statistics, known.top_ids, known.top_log_probs, probabilities)
