"""Filters over a store: findings first, stage by stage; then decisions over all records together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ift_training.data.generation.record import Reason, Status
from ift_training.data.generation.store import RecordStore
from ift_training.data.quality.asked_model import AskedModel
from ift_training.data.quality.balance import balanced, plain, rates
from ift_training.data.quality.complexity import Complexity, level
from ift_training.data.quality.decisions import (
    FLAGGED,
    REJECTED,
    SOFT,
    Decision,
    decide,
    relative_severity,
    status_of,
)
from ift_training.data.quality.duplicates import DuplicateIndex, Sketches, runs
from ift_training.data.quality.errors import QualityError
from ift_training.data.quality.examination import read_examination
from ift_training.data.quality.filters import DUPLICATES, GOOD, Findings, text_filters, vector_filters
from ift_training.data.quality.findings import FindingStore
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.recipe import QualityRecipe
from ift_training.data.quality.records import References, judged_pairs, read_references
from ift_training.data.quality.scoring import CHUNK, InOrder, Progress, Scorers, Stage, StageReport, TextProcesses

JUDGE = "filter"
"""The name under which the store keeps what the filters say."""
NOTE = "quality"
"""The name of the store's note with the last run's report."""
_WRITTEN_AT_ONCE = 1000
_BALANCE = "balance"
_SQLITE = b"SQLite format 3\0"


@dataclass(slots=True)
class FilterReport:
    """What a run came to. counts: records by status; reasons: by filter, records flagged and rejected by it."""

    records: int = 0
    taken_as_good: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    levels: list[dict[str, float]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)


def filter_records(
    store: RecordStore,
    recipe: QualityRecipe,
    *,
    asked: AskedModel | None = None,
    processes: int = 2,
    progress: Progress | None = None,
) -> FilterReport:
    """Judge every record of a store that its maker did not reject. Raises QualityError, MissingExtraError.

    What was found before is used again; a run that was killed at any moment and is started anew ends as an unbroken
    one. ``asked``: the model that is asked, where the recipe wants one.
    """
    if store.path is None:
        raise QualityError("the records must be in a file")
    if recipe.asked_model.use and asked is None:
        raise QualityError("asked_model.use: there is no server to ask; give --server, or leave it out")
    with FindingStore(store.path) as findings:
        run = _Run(store, findings, recipe, progress)
        report = FilterReport(recipe=recipe.model_dump(mode="json"))
        stages = run.score(asked, processes)
        run.decide(report)
        report.stages = [*map(asdict, stages), *report.stages]
        store.set_note(NOTE, asdict(report))
    return report


class _Run:
    """One run over one store."""

    def __init__(
        self, store: RecordStore, findings: FindingStore, recipe: QualityRecipe, progress: Progress | None
    ) -> None:
        self._store, self._findings, self._recipe, self._progress = store, findings, recipe, progress
        self._thresholds = recipe.thresholds()
        self._references: References = {}
        if recipe.references.use and recipe.references.file is not None:
            self._references = read_references(recipe.references.file)
        exam = recipe.examination
        self._examination = read_examination(exam.files, exam.fields) if exam.files else []
        self._refused = findings.refused_by_maker()
        self._stages: list[Stage] = []

    def _pairs(self) -> Iterator[tuple[Pair, bool]]:
        return judged_pairs(self._store, self._refused, self._recipe.steps, self._references)

    def _chunks(self) -> Iterator[Sequence[Pair]]:
        """Judged records, in chunks by their places."""
        chunk: list[Pair] = []
        for pair, is_judged in self._pairs():
            if is_judged:
                chunk.append(pair)
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def score(self, asked: AskedModel | None, processes: int) -> list[StageReport]:
        """All stages; each may be there already."""
        total = sum(is_judged for _, is_judged in self._pairs())
        recipe, exam = self._recipe, self._examination
        reports = []
        text = text_filters(recipe, exam)
        scorers: Scorers | None = None
        if on_ray := recipe.engine == "ray":
            from ift_training.data.quality.on_ray import FilterSource, RayScorers, connect

            connect()
            scorers = RayScorers(FilterSource.of(recipe, exam, text, "text", references=False))
            reports.append(self._stage(Stage("text", text, scorers), total))
        elif total > CHUNK and processes > 1:
            with closing(TextProcesses(recipe, exam, processes)) as pool:
                reports.append(self._stage(Stage("text", text, InOrder(pool, pool.ahead)), total))
        else:
            reports.append(self._stage(Stage("text", text), total))
        if vectors := vector_filters(recipe, exam, bool(self._references)):
            if on_ray:
                referred = bool(self._references)
                scorers = RayScorers(FilterSource.of(recipe, exam, vectors, "vectors", references=referred))
            reports.append(self._stage(Stage("vectors", vectors, scorers), total))
        if recipe.entailment.use and recipe.entailment.path is not None:
            from ift_training.data.quality.entailment import Entailment

            reports.append(self._stage(Stage("entailment", [Entailment(recipe.entailment.path)]), total))
        if asked is not None and recipe.asked_model.use:
            reports.append(self._stage(Stage("asked model", [asked]), total))
        return reports

    def _stage(self, stage: Stage, total: int) -> StageReport:
        self._stages.append(stage)
        return stage.run(self._findings, self._chunks, total, self._progress)

    def _found(self, pairs: Sequence[Pair]) -> list[Findings | None]:
        """Findings of all stages; None for a record that a stage could not judge."""
        ids = [pair.id for pair in pairs]
        found: list[Findings | None] = [{} for _ in ids]
        for stage in self._stages:
            there = self._findings.get(ids, stage.name, stage.fingerprint)
            for place, record in enumerate(ids):
                own, known = there.get(record), found[place]
                found[place] = None if own is None or known is None else known | own
        return found

    def _decisions(self) -> Iterator[tuple[Pair, Findings | None, Decision]]:
        """Each judged record with what its own findings come to."""
        for chunk in self._chunks():
            for pair, found in zip(chunk, self._found(chunk), strict=True):
                if found is None:
                    yield pair, None, Decision(FLAGGED, (_UNJUDGED,), False)
                else:
                    yield pair, found, decide(found, self._thresholds)

    def decide(self, report: FilterReport) -> None:
        """From findings to verdicts, over all records together."""
        begun = time.monotonic()
        table = _Table()
        for _, found, decision in self._decisions():
            score = None if found is None or Complexity.name not in found else found[Complexity.name].score
            table.add(decision, 0 if score is None else level(score))
        columns = table.columns()
        doubled = self._duplicates(columns) if DUPLICATES in self._thresholds else {}
        before = columns.severities < FLAGGED
        kept = before
        if self._recipe.balance.use:
            kept = balanced(columns.levels, columns.severities, columns.soft, self._recipe.balance.slack)
        self._write(columns, doubled, kept, report)
        report.levels = [dict(plain(rate)) for rate in rates(columns.levels, before, kept)]
        report.taken_as_good = sum(not is_judged for _, is_judged in self._pairs())
        report.stages.append(asdict(StageReport("decisions", report.records, 0, time.monotonic() - begun)))

    def _duplicates(self, columns: _Columns) -> dict[int, Reason]:
        """By number of the judged record: the accepted record that it is too close to. Its severity is raised."""
        settings = self._recipe.duplicates
        limits = [limit for limit in (settings.flag, settings.reject) if limit is not None]
        if not limits:
            return {}
        sketches = Sketches(min(limits))
        for pair, _ in self._pairs():
            sketches.add(runs(pair, settings.text, settings.run))
        index = DuplicateIndex(sketches.shared(), min(limits))
        reviewed = self._findings.reviewed()
        ids: dict[int, str] = {}
        found: dict[int, Reason] = {}
        number = -1
        for place, (pair, is_judged) in enumerate(self._pairs()):
            number += is_judged
            if place not in index:
                continue
            own = runs(pair, settings.text, settings.run)
            status: str = status_of(float(columns.severities[number])) if is_judged else "kept"
            if is_judged and status != "rejected":
                score, other = index.closest(place, own)
                if other >= 0:
                    reason, worse = self._as_duplicate(score, ids[other])
                    found[number] = reason
                    columns.severities[number] = max(worse, columns.severities[number])
                    columns.soft[number] &= DUPLICATES in SOFT
                    status = status_of(float(columns.severities[number]))
            if reviewed.get(pair.id, status) != "rejected":
                ids[place] = pair.id
                index.accept(place, own)
        return found

    def _as_duplicate(self, score: float, other: str) -> tuple[Reason, float]:
        settings = self._recipe.duplicates
        worse = relative_severity(score, settings, GOOD[DUPLICATES])
        limit = settings.reject if worse >= REJECTED else settings.flag
        return Reason(DUPLICATES, f"says nearly what {other} says", round(score, 4), limit), worse

    def _write(self, columns: _Columns, doubled: dict[int, Reason], kept: Any, report: FilterReport) -> None:
        """The verdicts, in the order of the records."""
        counts: Counter[str] = Counter()
        reasons: dict[str, Counter[str]] = {}
        batch: list[tuple[str, Status, Sequence[Reason]]] = []
        for number, (pair, _, decision) in enumerate(self._decisions()):
            severity = float(columns.severities[number])
            status = status_of(severity)
            said = [*([doubled[number]] if number in doubled else []), *decision.reasons]
            if bool(kept[number]) != (status == "kept"):
                said.append(_moved(bool(kept[number]), int(columns.levels[number])))
                status = "kept" if kept[number] else "flagged"
            counts[status] += 1
            for reason in said if status != "kept" else ():
                reasons.setdefault(reason.name, Counter())[status] += 1
            batch.append((pair.id, status, said))
            if len(batch) == _WRITTEN_AT_ONCE:
                self._store.judge_all(JUDGE, batch)
                batch = []
            if self._progress is not None:
                self._progress("decisions", number + 1, len(columns.severities))
        self._store.judge_all(JUDGE, batch)
        report.records, report.counts = counts.total(), dict(counts)
        report.reasons = {name: dict(found) for name, found in sorted(reasons.items())}


_UNJUDGED = Reason("unjudged", "a question about it was not answered; run the filters again")


def _moved(is_kept: bool, own: int) -> Reason:
    text = "kept, though flagged" if is_kept else "flagged, though nothing speaks against it"
    return Reason(_BALANCE, f"{text}: level {own} was accepted too {'seldom' if is_kept else 'often'}")


@dataclass(frozen=True, slots=True)
class _Columns:
    severities: Any
    levels: Any
    soft: Any


class _Table:
    """What is held of each record over all of them: ten bytes."""

    def __init__(self) -> None:
        self._severities: list[float] = []
        self._levels = bytearray()
        self._soft = bytearray()

    def add(self, decision: Decision, own: int) -> None:
        self._severities.append(decision.severity)
        self._levels.append(own)
        self._soft.append(decision.is_soft)

    def columns(self) -> _Columns:
        return _Columns(
            np.array(self._severities, np.float64),
            np.frombuffer(bytes(self._levels), np.int8).copy(),
            np.frombuffer(bytes(self._soft), np.bool_).copy(),
        )


def is_store(path: Path) -> bool:
    """Whether a file is one of SQLite's, by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def open_store(path: Path) -> RecordStore:
    """The store of a file that is there. Raises QualityError."""
    if not path.is_file() or not is_store(path):
        raise QualityError(f"{path}: is no store of records")
    return RecordStore(path)
