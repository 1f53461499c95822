"""From logits to tokens: statistics of every row, its temperature, its draw."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from ift_kernels.row_statistics import row_statistics
from ift_kernels.sample_rows import SampledRows, sample_rows
from ift_serve.engine.protocol.generate import TokenStatistics
from ift_serve.engine.sampling.parameters import pack_parameters
from ift_serve.engine.sampling.temperatures import Rows, Temperatures
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
    """What was drawn and scored, on the CPU. ``temperatures``: those used, None where each row's is its own."""

    rows: SampledRows
    temperatures: list[float] | None


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
        statistics = row_statistics(logits, self._backend)
        parameters = pack_parameters(sampling, targets)
        adapts = any(row is not None and row.params.adaptive is not None for row in sampling)
        if self._device != "cpu":
            parameters = _moved(parameters, self._device)
        if adapts:
            parameters = replace(parameters, temperature=self._temperatures(statistics, hidden, rows))
        drawn = sample_rows(logits, parameters, self._backend, statistics)
        if self._device != "cpu":
            near = drawn.probabilities
            drawn = SampledRows(
                drawn.tokens.cpu(),
                drawn.statistics.cpu(),
                drawn.top_ids.cpu(),
                drawn.top_log_probs.cpu(),
                None if near is None else near.cpu(),
            )
        _note_probabilities(drawn, sampling)
        return DrawnRows(drawn, parameters.temperature.tolist() if adapts else None)


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
        log_prob, p1, p2, entropy, top20 = statistics[index]
        drawn.append(SampledToken(tokens[index], TokenStatistics(log_prob, p1, p2, entropy, top20, temperature), top))
    return drawn


def scored_tokens(result: DrawnRows, first: int, count: int) -> ScoredTokens:
    """Rows ``first .. first+count-1`` as the scores of one sequence's targets."""
    rows, span = result.rows, slice(first, first + count)
    greedy = (rows.top_ids[span, 0] == rows.tokens[span]).tolist()
    return ScoredTokens(rows.statistics[span, 0].tolist(), greedy)
