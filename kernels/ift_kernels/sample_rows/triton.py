"""Drawing on a GPU: launches over (row, vocabulary tile) or rows.

1. where rows have biases, penalties or masks, a float32 copy of the logits with those;
2. where rows truncate, their thresholds, by four-way bisection over the ordered integers of the floats, and the mass
   that stays;
3. the Gumbel-max of each tile, merged into the token;
4. where rows ask for them, the log-probabilities in the distribution that they were drawn from.

Reductions run in a fixed order and rows never meet, so a row draws the same token in any batch.
"""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ift_kernels.float_keys import LOWEST_KEY, key_of, token_of
from ift_kernels.row_statistics.types import LARGEST, LOG_MASS, P1, TOP, RowStatistics
from ift_kernels.sample_rows.gumbel import gumbel
from ift_kernels.sample_rows.triton_processed import processed_kernel
from ift_kernels.sample_rows.triton_thresholds import ROW_PARAMETERS, near_score, scale, stays, threshold_kernel
from ift_kernels.sample_rows.types import RowParameters, SampledRows, SparseAdjustments, TokenMasks

_TILE = 2048
_LARGEST = tl.constexpr(3.4028234e38)
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


@triton.jit(do_not_specialize=["stride"], do_not_specialize_on_alignment=ROW_PARAMETERS)
def _tile_draw_kernel(
    x_ptr, stride, tops_ptr, temperature_ptr, thresholds_ptr, lasts_ptr, near_ptr, masses_ptr, seeds_ptr, steps_ptr,
    best_ptr, V: tl.constexpr, TILES: tl.constexpr, TILE: tl.constexpr, TRUNCATED: tl.constexpr, NEAR: tl.constexpr,
):  # fmt: skip
    """best[row, tile] = key of the largest tempered logit plus Gumbel noise; without noise at temperature 0."""
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = tile * TILE + tl.arange(0, TILE)
    x = tl.load(x_ptr + row * stride + token, mask=token < V, other=float("-inf")).to(tl.float32)
    temperature = tl.load(temperature_ptr + row)
    score = x
    if temperature > 0.0:
        largest = tl.load(tops_ptr + row)
        origin, inverse = scale(largest, temperature)
        z = (x - origin) * inverse
        score = z
        if NEAR:
            near = tl.load(near_ptr + row)
            if near >= 0.0:
                score = near_score(tl.exp(z - (largest - origin) * inverse), tl.load(masses_ptr + row), near)
        score += gumbel(token, tl.load(seeds_ptr + row), tl.load(steps_ptr + row))
        if TRUNCATED:
            threshold, last = tl.load(thresholds_ptr + row), tl.load(lasts_ptr + row)
            score = tl.where(stays(z, token, threshold, last), score, float("-inf"))
    keys = tl.where(token < V, key_of(score, token), LOWEST_KEY)
    tl.store(best_ptr + row * TILES + tile, tl.max(keys, 0))


@triton.jit(do_not_specialize=["stride", "rows", "x_stride"], do_not_specialize_on_alignment=ROW_PARAMETERS)
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
        origin, inverse = scale(largest, temperature)
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
    rows, size = logits.shape
    device, tiles = logits.device, triton.cdiv(size, _TILE)
    changed = p.adjustments is not None or p.masks is not None
    drawn_from = _changed(logits, p.adjustments, p.masks) if changed else logits
    tops = drawn_from.amax(1) if changed else known.largest
    thresholds = torch.empty(rows, dtype=torch.float32, device=device)
    masses = torch.empty(rows, dtype=torch.float32, device=device)
    off = torch.zeros(rows, dtype=torch.float32, device=device)
    sigma, p_less = (off, off) if shape is None else (shape.top_n_sigma, shape.p_less)
    top_h = off if shape is None or shape.top_h is None else shape.top_h
    lasts = torch.empty(rows, dtype=torch.int32, device=device)
    near = torch.full_like(masses, -1.0) if p.near is None and shape is not None else p.near
    shaped = shape is not None or p.near is not None
    truncated = p.truncated or shaped
    if truncated:
        threshold_kernel[(rows,)](
            drawn_from,
            drawn_from.stride(0),
            tops,
            p.temperature,
            p.top_p,
            p.min_p,
            p.top_k,
            p.targets,
            sigma,
            p_less,
            top_h,
            thresholds if near is None else near,
            thresholds,
            lasts,
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
        lasts,
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
    processed = None
    if p.processed is not None:
        if not truncated:
            thresholds.fill_(-3.4e38)
            lasts.fill_(2**31 - 1)
        processed = torch.full((rows, 1 + TOP), float("nan"), dtype=torch.float32, device=device)
        # As in the draw, so that what is reported is what was compared.
        processed_kernel[(rows,)](
            drawn_from,
            drawn_from.stride(0),
            rows,
            tops,
            known.measures,
            p.temperature,
            thresholds,
            lasts,
            torch.full_like(masses, -1.0) if near is None else near,
            masses,
            p.targets,
            p.processed,
            tokens,
            known.top_ids,
            processed,
            V=size,
            BLOCK=4096,
            ENTRIES=triton.next_power_of_2(1 + TOP),
            num_warps=8,
            enable_fp_fusion=False,
        )
    return SampledRows(tokens, statistics, known.top_ids, known.top_log_probs, probabilities, processed)
