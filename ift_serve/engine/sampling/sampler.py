"""From logits to tokens: gathers every row's parameters into one call of the sampling kernel."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ift_kernels.sample_rows import RowParameters, SampledRows, SparseAdjustments, sample_rows
from ift_serve.engine.protocol.generate import SamplingParams, TokenStatistics
from ift_serve.engine.sequences.adjusted_tokens import AdjustedTokens, is_adjusted
from ift_serve.engine.sequences.step import SampledToken, SamplingRow, ScoredTokens

_GREEDY = SamplingParams(temperature=0.0)


def _adjusted(row: SamplingRow) -> AdjustedTokens:
    if row.adjusted is None:
        row.adjusted = AdjustedTokens(row.params, row.history[: row.prompt_length])
    return row.adjusted


def _adjustments(rows: list[SamplingRow | None]) -> SparseAdjustments | None:
    entries = [
        _adjusted(row).entries(row.history) if row is not None and is_adjusted(row.params) else None for row in rows
    ]
    found = [entry for entry in entries if entry is not None]
    if not found:
        return None
    lengths = [0, *(0 if entry is None else len(entry[0]) for entry in entries)]
    ids, generated, bias = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*found, strict=True))
    params = [_GREEDY if row is None else row.params for row in rows]
    return SparseAdjustments(
        torch.from_numpy(np.cumsum(lengths, dtype=np.int32)),
        ids,
        generated,
        bias,
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
