"""The filters that a recipe asks for, in three stages: by text alone, by vectors, by asking a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from ift_serve.checks import parse_checks
from ift_training.data.embedding import SentenceEncoder
from ift_training.data.quality.alignment import Alignment
from ift_training.data.quality.coherence import Coherence
from ift_training.data.quality.complexity import Complexity
from ift_training.data.quality.contamination import SharedMeaning, SharedRuns
from ift_training.data.quality.contradiction import Contradiction
from ift_training.data.quality.filter import DIGITS, Filter, Finding
from ift_training.data.quality.formats import Format
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.personal import Personal
from ift_training.data.quality.recipe import QualityRecipe
from ift_training.data.quality.references import References
from ift_training.data.quality.repetition import Repetition
from ift_training.data.quality.unsafe import Unsafe

Good = Literal["high", "low"]
Findings = dict[str, Finding]
"""By the names of the filters."""
DUPLICATES = "duplicates"
"""Judged over all records together, after the filters of single ones."""
GOOD: dict[str, Good] = {
    **{kind.name: kind.good for kind in (
        Format, Alignment, Repetition, Contradiction, Personal, Unsafe, Complexity, SharedRuns, Coherence, References,
        SharedMeaning,
    )},
    "entailment": "low", "asked_model": "low", DUPLICATES: "low",
}  # fmt: skip
"""Whether high or low scores are good ones, by filter."""


def text_filters(recipe: QualityRecipe, examination: Sequence[str] = ()) -> list[Filter]:
    """What is told by text alone, in any process."""
    every: list[Filter] = [
        Format(parse_checks(recipe.format.checks)), Alignment(), Repetition(), Contradiction(), Personal(), Unsafe(),
        Complexity(),
    ]  # fmt: skip
    if examination:
        every.append(SharedRuns(examination, recipe.shared_runs.run))
    return _used(every, recipe)


def vector_filters(recipe: QualityRecipe, examination: Sequence[str], with_references: bool) -> list[Filter]:
    """What is told by meaning. Raises MissingExtraError without the package of the sentence model."""
    wanted = recipe.thresholds()
    meant = bool(examination) and SharedMeaning.name in wanted
    referred = with_references and References.name in wanted
    if not (meant or referred or Coherence.name in wanted):
        return []
    encoder = SentenceEncoder(recipe.encoder)
    every: list[Filter] = [Coherence(encoder)]
    if referred:
        every.append(References(encoder))
    if meant:
        every.append(SharedMeaning(examination, encoder))
    return _used(every, recipe)


def score_all(filters: Sequence[Filter], pairs: Sequence[Pair]) -> list[Findings]:
    """What every filter finds in every pair; scores are rounded, so that the last bits of a product decide nothing."""
    found: list[Findings] = [{} for _ in pairs]
    for each in filters:
        for place, finding in enumerate(each.score(pairs)):
            found[place][each.name] = _rounded(finding)
    return found


def fingerprint(filters: Sequence[Filter], *more: Any) -> str:
    """Of all that findings depend on besides the records."""
    values = [[each.name, each.revision, each.depends_on()] for each in filters]
    return hashlib.sha256(json.dumps([values, more], sort_keys=True, default=str).encode()).hexdigest()[:16]


def packed(findings: Mapping[str, Finding]) -> dict[str, Any]:
    """Plain values of findings."""
    return {name: [found.score, found.reason, found.span] for name, found in findings.items()}


def unpacked(values: Mapping[str, Any]) -> Findings:
    """Findings of plain values."""
    return {
        name: Finding(score, reason, None if span is None else (span[0], span[1]))
        for name, (score, reason, span) in values.items()
    }


def is_complete(findings: Iterable[Finding]) -> bool:
    """Whether every question was answered: a finding with a reason and without a score is one that was not."""
    return not any(found.score is None and found.reason for found in findings)


def _used(every: Sequence[Filter], recipe: QualityRecipe) -> list[Filter]:
    wanted = recipe.thresholds()
    return [each for each in every if each.name in wanted]


def _rounded(found: Finding) -> Finding:
    return found if found.score is None else Finding(round(found.score, DIGITS), found.reason, found.span)
