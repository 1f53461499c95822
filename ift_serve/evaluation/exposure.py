"""Scores on tasks that an adapter was trained on, on unseen ones, and what it lost of its base model's skills."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ift_serve.evaluation.comparison import Comparison, compare, mcnemar
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.rows import Row
from ift_serve.evaluation.scores import ALL, Score, scores, wilson
from ift_serve.evaluation.tasks.task import KIND

Part = Literal["seen", "unseen"]
TrainedOn = Mapping[str, Sequence[str]]
"""By model: names such as ``family:case``; models of which nothing is known, the base among them, are not in it."""


@dataclass(frozen=True, slots=True)
class PartScore:
    """Prompts of which everything was in the adapter's training, or nothing; those that mix the two are in neither.

    ``model``: whose answers, the adapter's or the base's on the same prompts. ``kept``: share of constraints.
    """

    adapter: str
    part: Part
    model: str
    task: str
    column: str
    value: float
    low: float
    high: float
    kept: float
    prompts: int


@dataclass(frozen=True, slots=True)
class PartComparison:
    """The adapter less the base, on prompts of one part."""

    adapter: str
    part: Part
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Forgetting:
    """What the base kept and the adapter does not, of prompts that its training had nothing of.

    ``kept``: prompts that the base kept whole (with repeats: mostly); ``lost`` of these the adapter does not; ``share``
    with its 95 % interval. ``gained``: prompts that only the adapter keeps. ``p_value``: exact McNemar test.
    """

    adapter: str
    base: str
    task: str
    column: str
    kept: int
    lost: int
    share: float
    low: float
    high: float
    gained: int
    p_value: float
    prompts: int


@dataclass(frozen=True, slots=True)
class TextChange:
    """Bits a byte of the same texts by base and adapter; more is worse. ``texts``: parts that both scored."""

    adapter: str
    base: str
    task: str
    before: float
    after: float
    texts: int


def part_of(kind: str, families: Iterable[str], trained_on: Sequence[str]) -> Part | None:
    """``seen`` if every family is named, ``unseen`` if none is, None for a mixture or no families.

    ``kind``: what they are names of; a kind that training does not write down has seen nothing.
    """
    named = set(trained_on)
    found = {f"{kind}:{family}" in named for family in families}
    if len(found) != 1:
        return None
    return "seen" if found.pop() else "unseen"


def part_scores(rows: Sequence[Row], models: Sequence[str], trained_on: TrainedOn) -> list[PartScore]:
    """For each adapter whose training is known: its own scores, and the first model's, by part."""
    found = []
    for adapter, part, own in _parts(rows, models, trained_on):
        every = scores(own)
        kept = {(s.model, s.task, s.column): s.value for s in every if s.level == "constraint"}
        found += [_part_score(adapter, part, s, kept[s.model, s.task, s.column]) for s in every if _is_whole(s)]
    return found


def part_comparisons(rows: Sequence[Row], models: Sequence[str], trained_on: TrainedOn) -> list[PartComparison]:
    """The first model beside each adapter whose training is known, by part."""
    return [
        PartComparison(adapter, part, comparison)
        for adapter, part, own in _parts(rows, models, trained_on)
        for comparison in compare(own, models[0], adapter)
    ]


def forgetting(rows: Sequence[Row], models: Sequence[str], trained_on: TrainedOn) -> list[Forgetting]:
    """Of each adapter whose training is known, by task and column."""
    found = []
    for adapter, part, own in _parts(rows, models, trained_on):
        if part == "seen":
            continue
        for task in dict.fromkeys(row.task for row in own):
            of_task = [row for row in own if row.task == task]
            for column in next((row.verdicts for row in of_task if row.verdicts), {}):
                before, after = (_kept(of_task, model, column) for model in (models[0], adapter))
                if keys := before.keys() & after.keys():
                    pairs = [(before[key], after[key]) for key in keys]
                    found.append(_forgotten(adapter, models[0], task, column, pairs))
    return found


def text_changes(rows: Sequence[Row], models: Sequence[str]) -> list[TextChange]:
    """Of each model after the first, over texts that both scored."""
    found = []
    scored = [row for row in rows if row.log_prob is not None]
    for task in dict.fromkeys(row.task for row in scored):
        own = {model: {r.key: r for r in scored if r.task == task and r.model == model} for model in models}
        for adapter in models[1:]:
            keys = own[models[0]].keys() & own[adapter].keys()
            size = sum(own[adapter][key].text_bytes for key in keys)
            if size:
                before, after = (
                    -sum(own[model][key].log_prob or 0.0 for key in keys) / size / math.log(2)
                    for model in (models[0], adapter)
                )
                found.append(TextChange(adapter, models[0], task, before, after, len(keys)))
    return found


def _parts(rows: Sequence[Row], models: Sequence[str], trained_on: TrainedOn) -> Iterable[tuple[str, Part, list[Row]]]:
    """Judged rows of the first model and of an adapter, by adapter and part."""
    parts: tuple[Part, ...] = ("seen", "unseen")
    for adapter in models[1:]:
        if adapter not in trained_on:
            continue
        own = [row for row in rows if row.model in (models[0], adapter) and row.verdicts and not row.error]
        sorted_rows = [
            (part_of(str(row.labels.get(KIND, "")), _families(row), trained_on[adapter]), row) for row in own
        ]
        for part in parts:
            if of_part := [row for found, row in sorted_rows if found == part]:
                yield adapter, part, of_part


def _families(row: Row) -> set[str]:
    return {verdict.family for judged in row.verdicts.values() for verdict in judged}


def _is_whole(score: Score) -> bool:
    return score.level == "prompt" and score.family == ALL


def _part_score(adapter: str, part: Part, s: Score, kept: float) -> PartScore:
    return PartScore(adapter, part, s.model, s.task, s.column, s.value, s.low, s.high, kept, s.prompts)


def _kept(rows: Sequence[Row], model: str, column: str) -> dict[str, bool]:
    """Prompts by key, and whether most of their samples are kept whole."""
    passes: dict[str, list[bool]] = {}
    for row in rows:
        if row.model == model:
            passes.setdefault(row.cluster, []).append(row.passes(column))
    return {key: 2 * sum(found) > len(found) for key, found in passes.items()}


def _forgotten(adapter: str, base: str, task: str, column: str, pairs: Sequence[tuple[bool, bool]]) -> Forgetting:
    kept = sum(before for before, _ in pairs)
    lost = sum(before and not after for before, after in pairs)
    gained = sum(after and not before for before, after in pairs)
    share = lost / kept if kept else 0.0
    low, high = wilson(share, kept)
    return Forgetting(
        adapter, base, task, column, kept, lost, share, low, high, gained, mcnemar(gained, lost), len(pairs)
    )


def plain(trained_on: TrainedOn, rows: Sequence[Row], models: Sequence[str]) -> dict[str, object]:
    """The part of a report that this module owns."""
    compared = part_comparisons(rows, models, trained_on)
    return {
        "trained_on": {model: list(names) for model, names in trained_on.items()},
        "parts": [dataclasses.asdict(found) for found in part_scores(rows, models, trained_on)],
        "part_comparisons": [
            dataclasses.asdict(c.comparison)
            | {"adapter": c.adapter, "part": c.part, "is_significant": c.comparison.is_significant}
            for c in compared
        ],
        "forgetting": [dataclasses.asdict(found) for found in forgetting(rows, models, trained_on)],
        "text_changes": [dataclasses.asdict(found) for found in text_changes(rows, models)],
    }


def read_trained_on(path: Path) -> list[str]:
    """From an adapter's directory, or its ``ift_config.json``. Raises EvaluationError."""
    file = path / "ift_config.json" if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["recipe"]["trained_on"]
        names = [str(name) for name in found]
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{file}: cannot be read: {error}") from None
    except (KeyError, TypeError):
        raise EvaluationError(f"{file}: recipe.trained_on: is missing; train the adapter again") from None
    return names
