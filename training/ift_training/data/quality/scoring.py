"""Every record through every filter, in chunks whose places do not depend on what was done before."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Protocol

from ift_training.data.quality.filter import Filter
from ift_training.data.quality.filters import Findings, fingerprint, is_complete, score_all, text_filters
from ift_training.data.quality.findings import FindingStore
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.recipe import QualityRecipe

CHUNK = 256
"""Records that are scored and written together: texts are batched within them alone, so that a run that was killed
computes what an unbroken one does, bit for bit."""
_QUEUED = 3
"""Chunks in flight for each process."""

Progress = Callable[[str, int, int], None]
"""Told the stage, how many records have it, of how many."""
Chunks = Callable[[], Iterator[Sequence[Pair]]]
"""The records again from the beginning."""


class Scorers(Protocol):
    """What scores chunks, wherever that is done."""

    def scored(self, work: Iterator[list[Pair]]) -> Iterator[tuple[list[Pair], list[Findings]]]:
        """Each chunk with its findings, in any order."""
        ...


class Judge(Protocol):
    """What scores a chunk and later has it."""

    def __call__(self, pairs: Sequence[Pair]) -> Callable[[], list[Findings]]:
        """Begin with a chunk; the result is had by calling what is returned."""
        ...


@dataclass(slots=True)
class StageReport:
    """What a stage did: records scored now, ones whose findings were there, and the seconds it took."""

    name: str
    scored: int = 0
    kept: int = 0
    seconds: float = 0.0


class InOrder:
    """Scores chunks of this machine, ``ahead`` of them at once."""

    def __init__(self, judge: Judge, ahead: int = 0) -> None:
        self._judge, self._ahead = judge, ahead

    def scored(self, work: Iterator[list[Pair]]) -> Iterator[tuple[list[Pair], list[Findings]]]:
        """See :class:`Scorers`; in the order of the chunks."""
        waiting: deque[tuple[list[Pair], Callable[[], list[Findings]]]] = deque()
        for pairs in work:
            waiting.append((pairs, self._judge(pairs)))
            while len(waiting) > self._ahead:
                first, result = waiting.popleft()
                yield first, result()
        for pairs, result in waiting:
            yield pairs, result()


class Stage:
    """Filters that run together. ``filters``: for their fingerprint; ``scorers``: score with them, by default here."""

    def __init__(self, name: str, filters: Sequence[Filter], scorers: Scorers | None = None) -> None:
        self.name, self.fingerprint = name, fingerprint(filters)
        self._scorers = scorers or InOrder(_here(filters))

    def run(self, store: FindingStore, chunks: Chunks, total: int, progress: Progress | None) -> StageReport:
        """Score what has no findings of these filters yet."""
        report, begun = StageReport(self.name), time.monotonic()

        def told() -> None:
            if progress is not None:
                progress(self.name, report.kept + report.scored, total)

        for pairs, findings in self._scorers.scored(self._missing(store, chunks, report, told)):
            found = {pair.id: one for pair, one in zip(pairs, findings, strict=True)}
            # A question that was not answered is asked again by the next run.
            store.put(self.name, self.fingerprint, {k: v for k, v in found.items() if is_complete(v.values())})
            report.scored += len(found)
            told()
        report.seconds = time.monotonic() - begun
        return report

    def _missing(
        self, store: FindingStore, chunks: Chunks, report: StageReport, told: Callable[[], None]
    ) -> Iterator[list[Pair]]:
        for chunk in chunks():
            there = store.get([pair.id for pair in chunk], self.name, self.fingerprint)
            missing = [pair for pair in chunk if pair.id not in there]
            report.kept += len(chunk) - len(missing)
            if missing:
                yield missing
            else:
                told()


def _here(filters: Sequence[Filter]) -> Judge:
    def judge(pairs: Sequence[Pair]) -> Callable[[], list[Findings]]:
        return lambda: score_all(filters, pairs)

    return judge


class TextProcesses:
    """Processes that apply the filters of text. A process that dies ends the run; what was written stays."""

    def __init__(self, recipe: QualityRecipe, examination: Sequence[str], processes: int) -> None:
        self.ahead = _QUEUED * processes
        self._pool = ProcessPoolExecutor(
            processes, get_context("spawn"), initializer=_prepare, initargs=(recipe.model_dump(), list(examination))
        )

    def __call__(self, pairs: Sequence[Pair]) -> Callable[[], list[Findings]]:
        """See :class:`Judge`."""
        future: Future[list[Findings]] = self._pool.submit(_score, list(pairs))
        return future.result

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)


_filters: list[Filter] = []
"""Of a process of the pool."""


def _prepare(recipe: dict[str, object], examination: list[str]) -> None:
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    _filters[:] = text_filters(QualityRecipe.model_validate(recipe), examination)


def _end_with_parent() -> None:
    """A process of a pool waits for work for ever, also when nobody is left to give it any."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _score(pairs: list[Pair]) -> list[Findings]:
    return score_all(_filters, pairs)
