"""From logits to tokens: gathers every row's parameters into one call of the sampling kernel."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ift_kernels.sample_rows import RowParameters, SampledRows, SparseAdjustments, sample_rows
from ift_serve.engine.messages import SamplingParams, TokenStatistics
from ift_serve.engine.step import SampledToken, SamplingRow, ScoredTokens

_GREEDY = SamplingParams(temperature=0.0)


def _is_adjusted(params: SamplingParams) -> bool:
    return bool(
        params.logit_bias
        or params.repetition_penalty != 1.0
        or params.presence_penalty != 0.0
        or params.frequency_penalty != 0.0
    )


def _row_entries(row: SamplingRow) -> tuple[list[int], list[int], list[float]]:
    """Token ids, times generated (0: prompt only, -1: biased only) and biases of one row."""
    params = row.params
    bias = params.logit_bias
    counts: dict[int, int] = {}
    if params.repetition_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0:
        counts = dict.fromkeys(row.history[: row.prompt_length], 0)
        counts.update(Counter(row.history[row.prompt_length :]))
    for token in bias:
        counts.setdefault(token, -1)
    return list(counts), list(counts.values()), [bias.get(token, 0.0) for token in counts]


def _adjustments(rows: list[SamplingRow | None]) -> SparseAdjustments | None:
    if not any(row is not None and _is_adjusted(row.params) for row in rows):
        return None
    offsets, ids, generated, bias = [0], list[int](), list[int](), list[float]()
    for row in rows:
        if row is not None and _is_adjusted(row.params):
            row_ids, row_generated, row_bias = _row_entries(row)
            ids += row_ids
            generated += row_generated
            bias += row_bias
        offsets.append(len(ids))
    params = [_GREEDY if row is None else row.params for row in rows]
    return SparseAdjustments(
        torch.tensor(offsets, dtype=torch.int32),
        torch.tensor(ids, dtype=torch.int32),
        torch.tensor(generated, dtype=torch.int32),
        torch.tensor(bias, dtype=torch.float32),
        torch.tensor([p.repetition_penalty for p in params], dtype=torch.float32),
        torch.tensor([p.presence_penalty for p in params], dtype=torch.float32),
        torch.tensor([p.frequency_penalty for p in params], dtype=torch.float32),
    )


def _signed(seed: int) -> int:
    """The low 64 bits of a seed as a signed integer."""
    seed &= (1 << 64) - 1
    return seed - (1 << 64) if seed >= 1 << 63 else seed


def _moved(parameters: RowParameters, device: str) -> RowParameters:
    """The same on the device; every tensor of it and of its adjustments."""

    def move(part: object) -> dict[str, Any]:
        values = {field.name: getattr(part, field.name) for field in fields(part)}  # type: ignore[arg-type]
        return {
            name: value.pin_memory().to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in values.items()
        }

    moved = move(parameters)
    if parameters.adjustments is not None:
        moved["adjustments"] = SparseAdjustments(**move(parameters.adjustments))
    return RowParameters(**moved)


class Sampler:
    """Draws and scores the rows of a step. A row is a sequence to sample, or a target to score."""

    def __init__(self, device: str = "cpu", backend: str = "auto") -> None:
        self._device = device
        self._backend = backend

    def run(self, logits: Tensor, rows: list[SamplingRow | None], targets: list[int]) -> SampledRows:
        """logits: ``[R, V]``; ``rows[i]`` is None where ``targets[i]`` is a token to score (else -1)."""
        count = len(rows)
        floats = np.zeros((3, count), dtype=np.float32)
        integers = np.zeros((2, count), dtype=np.int32)
        seeds = np.zeros(count, dtype=np.int64)
        floats[1] = 1.0
        for index, row in enumerate(rows):
            if row is not None and row.temperature > 0.0:
                params = row.params
                floats[:, index] = (row.temperature, params.top_p, params.min_p)
                integers[:, index] = (params.top_k, row.step)
                seeds[index] = _signed(row.seed)
        parameters = RowParameters(
            truncated=bool((floats[1] < 1.0).any() or floats[2].any() or integers[0].any()),
            temperature=torch.from_numpy(floats[0]),
            top_p=torch.from_numpy(floats[1]),
            min_p=torch.from_numpy(floats[2]),
            top_k=torch.from_numpy(integers[0]),
            seeds=torch.from_numpy(seeds),
            steps=torch.from_numpy(integers[1]),
            targets=torch.tensor(targets, dtype=torch.int32),
            adjustments=_adjustments(rows),
        )
        if self._device == "cpu":
            return sample_rows(logits, parameters, self._backend)
        result = sample_rows(logits, _moved(parameters, self._device), self._backend)
        return SampledRows(
            result.tokens.cpu(), result.statistics.cpu(), result.top_ids.cpu(), result.top_log_probs.cpu()
        )


def sampled_tokens(result: SampledRows, rows: list[SamplingRow | None]) -> list[SampledToken | None]:
    """The drawn tokens as messages carry them; None for scored rows."""
    tokens, statistics = result.tokens.tolist(), result.statistics.tolist()
    drawn: list[SampledToken | None] = []
    for index, row in enumerate(rows):
        if row is None:
            drawn.append(None)
            continue
        wanted = row.params.top_logprobs
        top: list[tuple[int, float]] = []
        if wanted:
            ids = result.top_ids[index, :wanted].tolist()
            top = [pair for pair in zip(ids, result.top_log_probs[index].tolist(), strict=False) if pair[0] >= 0]
        log_prob, p1, p2, entropy, top20 = statistics[index]
        shown = TokenStatistics(log_prob, p1, p2, entropy, top20, row.temperature)
        drawn.append(SampledToken(tokens[index], shown, top))
    return drawn


def scored_tokens(result: SampledRows, first: int, count: int) -> ScoredTokens:
    """Rows ``first .. first+count-1`` as the scores of one sequence's targets."""
    span = slice(first, first + count)
    greedy = (result.top_ids[span, 0] == result.tokens[span]).tolist()
    return ScoredTokens(result.statistics[span, 0].tolist(), greedy)
