"""Definition of sampling and its statistics, in float64 PyTorch and numpy."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ift_kernels.sample_rows.api import TOP, RowParameters, SampledRows, SparseAdjustments


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


def _filter(scaled: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor:
    keep = torch.ones_like(scaled, dtype=torch.bool)
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
    return scaled.masked_fill(~keep, float("-inf"))


def sample_rows_reference(logits: Tensor, parameters: RowParameters) -> SampledRows:
    """See :func:`ift_kernels.sample_rows.sample_rows`."""
    rows, size = logits.shape
    raw = logits.detach().cpu().double()
    log_probs = torch.log_softmax(raw, dim=-1)
    count = min(TOP, size)
    # By the logits themselves: log-probabilities of some that differ are equal.
    order = torch.sort(raw, dim=-1, descending=True, stable=True).indices
    top_values = log_probs.gather(1, order)
    top_ids = torch.full((rows, TOP), -1, dtype=torch.int32)
    possible = top_values[:, :count] > float("-inf")
    top_ids[:, :count] = torch.where(possible, order[:, :count].int(), -1)
    top_log_probs = torch.full((rows, TOP), float("-inf"))
    top_log_probs[:, :count] = top_values[:, :count].float()
    tokens = torch.empty(rows, dtype=torch.int32)
    for row in range(rows):
        if int(parameters.targets[row]) >= 0:
            tokens[row] = parameters.targets[row]
            continue
        adjusted = raw[row] if parameters.adjustments is None else _adjust(raw[row], row, parameters.adjustments)
        temperature = float(parameters.temperature[row])
        if temperature == 0.0:
            tokens[row] = int(torch.argmax(adjusted))
            continue
        kept = _filter(
            (adjusted - adjusted.max()) / temperature,  # far from zero, even float64 has no room for the noise
            int(parameters.top_k[row]),
            float(parameters.top_p[row]),
            float(parameters.min_p[row]),
        )
        uniform = philox_uniform(int(parameters.seeds[row]), int(parameters.steps[row]), size)
        tokens[row] = int(torch.argmax(kept - torch.log(-torch.log(torch.from_numpy(uniform)))))
    probabilities = log_probs.exp()
    entropy = -(probabilities * log_probs.masked_fill(probabilities == 0, 0.0)).sum(-1)
    second = top_values[:, 1].exp() if size > 1 else torch.zeros(rows, dtype=torch.float64)
    statistics = torch.stack(
        (
            log_probs.gather(1, tokens.long()[:, None])[:, 0],
            top_values[:, 0].exp(),
            second,
            entropy,
            top_values[:, :count].where(possible, 0.0).sum(-1) / possible.sum(-1),
        ),
        dim=1,
    ).float()
    return SampledRows(tokens, statistics, top_ids, top_log_probs)
