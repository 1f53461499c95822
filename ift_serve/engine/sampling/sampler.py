"""From logits to tokens: statistics of every row, its temperature, its draw."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ift_kernels.row_statistics import RowStatistics, row_statistics
from ift_kernels.row_statistics.types import LOG_MASS, P1
from ift_kernels.sample_rows import SampledRows, sample_rows
from ift_serve.engine.protocol.generate import TokenStatistics
from ift_serve.engine.sampling.parameters import pack_parameters
from ift_serve.engine.sampling.temperatures import Rows, Temperatures
from ift_serve.engine.sequences.adjusted_tokens import is_adjusted
from ift_serve.engine.sequences.step import SampledToken, SamplingRow, ScoredTokens


def _moved(part: Any, device: str) -> Any:
    """A dataclass with every tensor of it and of its parts on the device."""

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.pin_memory().to(device, non_blocking=True)
        return _moved(value, device) if is_dataclass(value) else value

    return replace(part, **{field.name: move(getattr(part, field.name)) for field in fields(part)})


@dataclass(slots=True)
class DrawnRows:
    """What was drawn and scored, on the CPU. ``temperatures``: those used, None where each row's is its own.

    ``calibrated``: by row, p1, p2, entropy and mean of the most likely by its calibration temperature.
    """

    rows: SampledRows
    temperatures: list[float] | None
    calibrated: dict[int, tuple[float, ...]]


class Sampler:
    """Draws and scores the rows of a step. A row is a sequence to sample, or a target to score."""

    def __init__(self, temperatures: Temperatures, device: str = "cpu", backend: str = "auto") -> None:
        self._temperatures = temperatures
        self._device = device
        self._backend = backend

    def run(self, logits: Tensor, hidden: Tensor | None, rows: Rows, targets: list[int]) -> DrawnRows:
        """logits: ``[R, V]``; hidden: ``[R, d]``, what they were computed from; ``rows[i]`` is None where
        ``targets[i]`` is a token to score (else -1)."""
        sampling = [None if row is None else row.sampling for row in rows]
        calibrated = _calibrated(logits, sampling, self._backend)
        if all(row is not None and _takes_the_likeliest(row) for row in sampling):
            likeliest = _likeliest(row_statistics(logits, self._backend))
            return DrawnRows(likeliest if self._device == "cpu" else _on_cpu(likeliest), None, calibrated)
        parameters = pack_parameters(sampling, targets)
        adapts = any(row is not None and row.params.adaptive is not None for row in sampling)
        if self._device != "cpu":
            parameters = _moved(parameters, self._device)
        statistics = None
        if adapts:
            statistics = row_statistics(logits, self._backend)
            parameters = replace(parameters, temperature=self._temperatures(statistics, hidden, rows))
        drawn = sample_rows(logits, parameters, self._backend, statistics)
        if self._device != "cpu":
            drawn = _on_cpu(drawn)
        _note_probabilities(drawn, sampling)
        return DrawnRows(drawn, parameters.temperature.tolist() if adapts else None, calibrated)


def _calibrated(logits: Tensor, rows: list[SamplingRow | None], backend: str) -> dict[int, tuple[float, ...]]:
    """Statistics of ``logits / T`` for the rows that have a calibration temperature, float32."""
    wanted = {i: row.calibration for i, row in enumerate(rows) if row is not None and row.calibration is not None}
    if not wanted:
        return {}
    places = torch.tensor(list(wanted), device=logits.device)
    divisors = torch.tensor(list(wanted.values()), dtype=torch.float32, device=logits.device)
    found = row_statistics(logits[places].float() / divisors[:, None], backend)
    lines = torch.stack((found.p1, found.p2, found.entropy, found.mean_top), 1).tolist()
    return dict(zip(wanted, map(tuple, lines), strict=True))


def _on_cpu(drawn: SampledRows) -> SampledRows:
    parts = {field.name: getattr(drawn, field.name) for field in fields(drawn)}
    return replace(drawn, **{name: part.cpu() for name, part in parts.items() if part is not None})


def _takes_the_likeliest(row: SamplingRow) -> bool:
    """Whether nothing is drawn and nothing changes the logits, so that the statistics tell all."""
    greedy = row.temperature == 0.0 and row.mask is None
    return greedy and not is_adjusted(row.params) and not row.params.processed_log_probs


def _likeliest(known: RowStatistics) -> SampledRows:
    """The most likely token of each row. In one without a distribution any token, with statistics that are NaN."""
    tokens = known.top_ids[:, 0].clamp_min(0)
    log_prob = 0.0 - known.measures[LOG_MASS : LOG_MASS + 1]
    statistics = torch.cat((log_prob, known.measures[P1:])).T
    return SampledRows(tokens, statistics, known.top_ids, known.top_log_probs)


def _note_probabilities(drawn: SampledRows, rows: list[SamplingRow | None]) -> None:
    """What adaptive-p remembers of each row's token."""
    if drawn.probabilities is None:
        return
    for row, token, probability in zip(rows, drawn.tokens.tolist(), drawn.probabilities.tolist(), strict=True):
        if row is not None and row.average is not None and row.temperature > 0.0:
            row.average.note(len(row.history), token, probability)


def sampled_tokens(result: DrawnRows, rows: Rows) -> list[SampledToken | None]:
    """The drawn tokens as messages carry them; None for scored rows. A row without a token has the id -1."""
    tokens, statistics = result.rows.tokens.tolist(), result.rows.statistics.tolist()
    drawn: list[SampledToken | None] = []
    for index, step in enumerate(rows):
        row = None if step is None else step.sampling
        if row is None:
            drawn.append(None)
            continue
        wanted = row.params.top_logprobs
        top: list[tuple[int, float]] = []
        if wanted:
            ids = result.rows.top_ids[index, :wanted].tolist()
            top = [pair for pair in zip(ids, result.rows.top_log_probs[index].tolist(), strict=False) if pair[0] >= 0]
        temperature = row.temperature
        if result.temperatures is not None and row.params.adaptive is not None:
            temperature = result.temperatures[index]
        after: tuple[float, ...] = ()
        if row.params.processed_log_probs and result.rows.processed is not None:
            after = tuple(result.rows.processed[index, : 1 + len(top)].tolist())
        log_prob, p1, p2, entropy, top20 = statistics[index]
        told = TokenStatistics(log_prob, p1, p2, entropy, top20, temperature, False, after)
        calibrated = None
        if (own := result.calibrated.get(index)) is not None:
            calibrated = TokenStatistics(log_prob, own[0], own[1], own[2], own[3], temperature)
        drawn.append(SampledToken(tokens[index], told, top, calibrated))
    return drawn


def scored_tokens(result: DrawnRows, first: int, count: int) -> ScoredTokens:
    """Rows ``first .. first+count-1`` as the scores of one sequence's targets."""
    rows, span = result.rows, slice(first, first + count)
    greedy = (rows.top_ids[span, 0] == rows.tokens[span]).tolist()
    return ScoredTokens(rows.statistics[span, 0].tolist(), greedy)
