"""Definition of the draw, in float64 PyTorch and numpy."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ift_kernels.row_statistics.reference import row_statistics_reference
from ift_kernels.row_statistics.types import P1, TOP, RowStatistics
from ift_kernels.sample_rows.types import RowParameters, SampledRows, SparseAdjustments, TokenMasks


def philox_uniform(seed: int, step: int, size: int) -> NDArray[np.float64]:
    """First word of Philox-4x32-10 for counters ``(0 .. size-1, step, 0, 0)`` as uniforms in (0, 1), 23 bits."""
    mask = np.uint64(0xFFFFFFFF)
    words = [np.arange(size, dtype=np.uint64), np.full(size, step, dtype=np.uint64)]
    words += [np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.uint64)]
    key0, key1 = np.uint64(seed & 0xFFFFFFFF), np.uint64((seed >> 32) & 0xFFFFFFFF)
    for _ in range(10):
        product0 = words[0] * np.uint64(0xD2511F53)
        product1 = words[2] * np.uint64(0xCD9E8D57)
        words = [
            (product1 >> np.uint64(32)) ^ words[1] ^ key0,
            product1 & mask,
            (product0 >> np.uint64(32)) ^ words[3] ^ key1,
            product0 & mask,
        ]
        key0 = (key0 + np.uint64(0x9E3779B9)) & mask
        key1 = (key1 + np.uint64(0xBB67AE85)) & mask
    return ((words[0] >> np.uint64(9)).astype(np.float64) + 0.5) / 2.0**23


def _adjust(logits: Tensor, row: int, adjustments: SparseAdjustments) -> Tensor:
    logits = logits.clone()
    repetition = float(adjustments.repetition[row])
    for entry in range(int(adjustments.offsets[row]), int(adjustments.offsets[row + 1])):
        token, generated = int(adjustments.token_ids[entry]), int(adjustments.generated[entry])
        value = logits[token] + float(adjustments.bias[entry])
        if generated >= 0:
            value = value / repetition if value > 0 else value * repetition
            value -= float(adjustments.frequency[row]) * generated
            value -= float(adjustments.presence[row]) * (generated > 0)
        logits[token] = value
    return logits


def _allowed(masks: TokenMasks, row: int, size: int) -> Tensor:
    """``[V]`` bool."""
    if int(masks.of_row[row]) < 0:
        return torch.ones(size, dtype=torch.bool)
    words = masks.bits[int(masks.of_row[row])].cpu().numpy().view(np.uint8)
    return torch.from_numpy(np.unpackbits(words, bitorder="little")[:size].astype(bool))


def _filter(scaled: Tensor, keep: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Which of the kept tokens top-k, top-p and min-p let stay."""
    keep = keep.clone()
    if 0 < top_k < scaled.numel():
        keep &= scaled >= torch.topk(scaled, top_k).values[-1]
    if top_p < 1.0:
        probabilities = torch.softmax(scaled.masked_fill(~keep, float("-inf")), dim=-1)
        ordered, order = torch.sort(scaled, descending=True, stable=True)
        above = torch.cumsum(probabilities[order], 0) - probabilities[order]
        # Equal tokens share the mass strictly above the first of them.
        first_of_run = torch.searchsorted(-ordered, -ordered)
        keep &= torch.zeros_like(keep).scatter(0, order, above[first_of_run] < top_p)
    if min_p > 0.0:
        keep &= scaled >= scaled.max() + np.log(min_p)
    return keep


def top_n_sigma(logits: Tensor, n: float) -> Tensor:
    """Which logits ``[V]`` are at least ``max - n sigma`` (arXiv 2411.07641, algorithm 1)."""
    possible = logits[logits > float("-inf")]
    return logits >= possible.max() - n * possible.std(correction=0)


def p_less(probabilities: Tensor) -> Tensor:
    """Which of the probabilities ``[V]`` are at least ``sum p^2`` (arXiv 2509.23234, equation 3)."""
    # Of equal tokens all stay, whichever way their sum is rounded.
    return probabilities >= probabilities.square().sum() * (1 - 1e-12)


def top_h(probabilities: Tensor, alpha: float) -> Tensor:
    """The longest run of most likely tokens whose entropy is at most ``alpha H(p)`` (arXiv 2509.02510, algorithm 1)."""

    def entropy(p: Tensor) -> float:
        return float(torch.special.entr(p / p.sum()).sum())

    ordered, order = torch.sort(probabilities, descending=True, stable=True)
    bound = alpha * entropy(probabilities)
    count = 1
    while count < int((probabilities > 0).sum()) and entropy(ordered[: count + 1]) <= bound:
        count += 1
    return torch.zeros_like(probabilities, dtype=torch.bool).scatter(0, order[:count], True)


def near_scores(probabilities: Tensor, near: float) -> Tensor:
    """What adaptive-p makes of probabilities ``[V]`` (llama.cpp's ``llama_sampler_adaptive_p``)."""
    distance = (probabilities - near).abs() / 0.3
    return 5 - 10 * distance.square() / (1 + distance)


def _kept(adjusted: Tensor, scaled: Tensor, row: int, parameters: RowParameters) -> Tensor:
    """``[V]`` bool: what all truncations leave of a row."""
    keep = scaled > float("-inf")
    shape = parameters.truncations
    if shape is not None and (n := float(shape.top_n_sigma[row])) > 0:
        keep &= top_n_sigma(adjusted, n)
    keep = _filter(scaled, keep, int(parameters.top_k[row]), float(parameters.top_p[row]), float(parameters.min_p[row]))
    if shape is not None and float(shape.p_less[row]) > 0:
        keep &= p_less(torch.softmax(scaled.masked_fill(~keep, float("-inf")), 0))
    if shape is not None and shape.top_h is not None and (alpha := float(shape.top_h[row])) > 0:
        keep &= top_h(torch.softmax(scaled.masked_fill(~keep, float("-inf")), 0), alpha)
    return keep


def _drawn(raw: Tensor, row: int, parameters: RowParameters) -> tuple[int, float, Tensor]:
    """The token of a row, -1 if there is none, its probability before adaptive-p, and the log-probabilities ``[V]`` of
    the distribution that it is drawn from."""
    size = raw.numel()
    adjusted = raw if parameters.adjustments is None else _adjust(raw, row, parameters.adjustments)
    if parameters.masks is not None:
        adjusted = adjusted.masked_fill(~_allowed(parameters.masks, row, size), float("-inf"))
    if bool((adjusted == float("-inf")).all()):
        return -1, float("nan"), torch.full_like(raw, float("nan"))
    temperature = float(parameters.temperature[row])
    if temperature == 0.0:
        best = int(torch.argmax(adjusted))
        certain = torch.full_like(raw, float("-inf")).index_fill(0, torch.tensor([best]), 0.0)
        return best, float("nan"), certain
    # Far from zero, even float64 has no room for the noise.
    scaled = (adjusted - adjusted.max()) / temperature
    scores = scaled.masked_fill(~_kept(adjusted, scaled, row, parameters), float("-inf"))
    probabilities = torch.softmax(scores, 0)
    near = -1.0 if parameters.near is None else float(parameters.near[row])
    if near >= 0:
        scores = near_scores(probabilities, near).masked_fill(scores == float("-inf"), float("-inf"))
    uniform = philox_uniform(int(parameters.seeds[row]), int(parameters.steps[row]), size)
    token = int(torch.argmax(scores - torch.log(-torch.log(torch.from_numpy(uniform)))))
    return token, float(probabilities[token]) if near >= 0 else float("nan"), torch.log_softmax(scores, 0)


def _of_tokens(log_probs: Tensor, token_ids: list[int]) -> Tensor:
    """Those of some tokens; -inf for -1, which is none."""
    return torch.tensor([float(log_probs[token]) if token >= 0 else float("-inf") for token in token_ids])


def sample_rows_reference(
    logits: Tensor, parameters: RowParameters, statistics: RowStatistics | None = None
) -> SampledRows:
    """See :func:`ift_kernels.sample_rows.sample_rows`."""
    known = row_statistics_reference(logits) if statistics is None else statistics
    rows, _ = logits.shape
    raw = logits.detach().cpu().double()
    tokens = torch.empty(rows, dtype=torch.int32)
    probabilities = torch.full((rows,), float("nan"))
    log_probs = torch.full((rows,), float("nan"))
    sound = ~(raw.isnan() | (raw == float("inf"))).any(-1) & (raw > float("-inf")).any(-1)
    processed = torch.full((rows, 1 + TOP), float("nan"))
    for row in range(rows):
        token = int(parameters.targets[row])
        if token < 0 and not sound[row]:
            token = 0
        elif token < 0:
            token, probabilities[row], after = _drawn(raw[row], row, parameters)
            if parameters.processed is not None and bool(parameters.processed[row]):
                processed[row] = _of_tokens(after, [token, *known.top_ids[row].tolist()])
        tokens[row] = token
        if token >= 0:
            log_probs[row] = torch.log_softmax(raw[row], 0)[token]
    reported = torch.stack((log_probs, *known.measures[P1:]), dim=1)
    near = None if parameters.near is None else probabilities
    after_all = None if parameters.processed is None else processed
    return SampledRows(tokens, reported, known.top_ids, known.top_log_probs, near, after_all)
