"""Scores of rows: how many prompts and constraints were kept, with intervals, and what was left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ift_serve.evaluation.rows import Row

ALL = "all"
"""The name of all families together."""
_Z = 1.959964
"""Of a normal distribution: 95 % lie within so many standard deviations."""


@dataclass(frozen=True, slots=True)
class Score:
    """A share from 0 to 1 with its 95 % interval. ``prompts``: clusters it is computed from; ``level``: what counts."""

    model: str
    task: str
    column: str
    level: str
    family: str
    value: float
    low: float
    high: float
    prompts: int
    samples: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """What became of all samples of a model in a task, and what they cost."""

    model: str
    task: str
    asked: int
    answered: int
    empty: int
    cut: int
    prompt_tokens: int
    generated_tokens: int
    drawn_tokens: int
    seconds: float

    @property
    def share(self) -> float:
        """Answered of asked."""
        return self.answered / self.asked if self.asked else 0.0


@dataclass(frozen=True, slots=True)
class TextScore:
    """How well texts were predicted: perplexity of tokens and of bytes, and bits a byte."""

    model: str
    task: str
    token_perplexity: float
    byte_perplexity: float
    bits_per_byte: float
    tokens: int


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927, equation 3). ``count``: independent observations."""
    if count == 0:
        return 0.0, 1.0
    spread = _Z * _Z / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / count / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def scores(rows: Sequence[Row]) -> list[Score]:
    """For each model, task and column: prompts kept whole, constraints kept, and constraints of each family.

    Samples, wordings and constraints of one prompt are one cluster: its share counts as one observation, whose variance
    is at most that of a single yes or no, so the intervals are never too narrow for repeats.
    """
    found: list[Score] = []
    for model, task, own in _by_model_and_task(rows):
        answered = [row for row in own if not row.error and row.verdicts]
        for column in answered[0].verdicts if answered else ():
            found.append(
                _score(model, task, column, "prompt", ALL, ((r.cluster, [r.passes(column)]) for r in answered))
            )
            kept = [(r.cluster, [v.passed for v in r.verdicts[column]]) for r in answered]
            found.append(_score(model, task, column, "constraint", ALL, kept))
            families = dict.fromkeys(v.family for r in answered for v in r.verdicts[column])
            for family in families:
                own_family = [
                    (r.cluster, [v.passed for v in r.verdicts[column] if v.family == family]) for r in answered
                ]
                found.append(_score(model, task, column, "family", family, own_family))
    return found


def coverage(rows: Sequence[Row]) -> list[Coverage]:
    """For each model and task."""
    return [
        Coverage(
            model, task, len(own), sum(not row.error for row in own), sum(row.is_empty for row in own),
            sum(row.is_cut for row in own), sum(row.prompt_tokens for row in own),
            sum(row.generated_tokens for row in own), sum(row.drawn_tokens for row in own),
            sum(row.seconds for row in own),
        )
        for model, task, own in _by_model_and_task(rows)
    ]  # fmt: skip


def text_scores(rows: Sequence[Row]) -> list[TextScore]:
    """For each model and task that scored texts."""
    found = []
    for model, task, own in _by_model_and_task(rows):
        scored = [row for row in own if row.log_prob is not None]
        if scored:
            nats = -sum(row.log_prob or 0.0 for row in scored)
            tokens, size = sum(row.text_tokens for row in scored), sum(row.text_bytes for row in scored)
            in_bytes = nats / size
            found.append(
                TextScore(
                    model, task, _exp(nats / tokens), _exp(in_bytes), in_bytes / math.log(2), tokens
                )
            )  # fmt: skip
    return found


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def _score(
    model: str, task: str, column: str, level: str, family: str, kept: Iterable[tuple[str, list[bool]]]
) -> Score:
    clusters: dict[str, list[bool]] = {}
    samples = 0
    for key, passed in kept:
        if passed:
            clusters.setdefault(key, []).extend(passed)
            samples += 1
    if level == "constraint":
        # Every constraint counts the same, as in IFEval's instruction level.
        every = [passed for passes in clusters.values() for passed in passes]
        share = sum(every) / len(every) if every else 0.0
    else:
        share = sum(sum(passes) / len(passes) for passes in clusters.values()) / len(clusters) if clusters else 0.0
    low, high = wilson(share, len(clusters))
    return Score(model, task, column, level, family, share, low, high, len(clusters), samples)


def _by_model_and_task(rows: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.task, row.model), []).append(row)
    return [(model, task, own) for (task, model), own in groups.items()]
