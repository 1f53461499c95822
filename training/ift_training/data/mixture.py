"""Several sources as one dataset: weights, shares for validation, and an order that the seed decides."""

from __future__ import annotations

import bisect
import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ift_training.data.encode import EncodedExample, Encoder, EncodingError
from ift_training.data.records import Record, RecordError
from ift_training.data.report import DataReport, SourceReport
from ift_training.data.settings import SourceSettings, ValidationSettings
from ift_training.data.shuffle import Permutation
from ift_training.data.sources import ProceduralSource, Source, SourceError, open_source
from ift_training.data.violations import violate

_SAMPLE = 256
"""Procedural examples looked at before the start; there is no end of them."""
_ATTEMPTS = 50

Progress = Callable[[int], None]


@dataclass(slots=True)
class Pool:
    """The records of a source that are used: their indexes, or all of a source that never ends."""

    source: Source
    kept: array[int] | None

    def __len__(self) -> int:
        return len(self.source) if self.kept is None else len(self.kept)


class ExampleDataset:
    """A map-style dataset of :class:`EncodedExample`, one epoch long.

    ``weight`` times as many examples of each pool are in an epoch as it has records; what a fraction leaves out of
    one epoch is in the next, so after k epochs every record was seen floor or ceil of ``k x weight`` times. The order
    within an epoch is a function of seed and epoch. ``tasks`` are the names that ``EncodedExample.task`` counts.
    """

    def __init__(
        self, pools: Sequence[Pool], encoder: Encoder, tasks: Sequence[str], seed: int, *, shuffle: bool = True,
        violations: bool = False,
    ) -> None:  # fmt: skip
        self.pools = [pool for pool in pools if len(pool)]
        self.encoder = encoder
        self.tasks = list(tasks)
        self.seed = seed
        self.epoch = 0
        self._shuffle = shuffle
        self._violations = violations
        self._counts = [max(1, round(pool.source.settings.weight * len(pool))) for pool in self.pools]
        self._ends: list[int] = []
        for count in self._counts:
            self._ends.append(count + (self._ends[-1] if self._ends else 0))
        self._order = Permutation(len(self), seed, "epoch", 0)
        self._turns: dict[tuple[int, int], Permutation] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def set_epoch(self, epoch: int) -> None:
        """Go to another epoch: another order, and other examples of sources that never end."""
        self.epoch = epoch
        self._order = Permutation(len(self), self.seed, "epoch", epoch)
        self._turns.clear()

    def __getitem__(self, index: int) -> EncodedExample:
        pool, place, turn = self._place(index)
        source = self.pools[pool].source
        for attempt in range(_ATTEMPTS):
            record, task = source.record(place, turn)
            try:
                return self._encode(record, task, f"{self.seed}|{pool}|{place}|{turn}")
            except EncodingError:
                if not source.fresh:
                    raise
                turn += (attempt + 1) << 32
        raise SourceError(f"{source.where(place)}: {_ATTEMPTS} examples in a row do not fit; raise max_length")

    def record(self, index: int) -> tuple[Record, str]:
        """The record behind an index, and its task."""
        pool, place, turn = self._place(index)
        return self.pools[pool].source.record(place, turn)

    def _encode(self, record: Record, task: str, key: str) -> EncodedExample:
        wrong = violate(record, random.Random(key)) if self._violations else None
        return self.encoder.encode(record, self.tasks.index(task), task, wrong)

    def _place(self, index: int) -> tuple[int, int, int]:
        """Pool, index within its source, and how often the source has been gone through before."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self._shuffle:
            index = self._order[index]
        number = bisect.bisect_right(self._ends, index)
        pool = self.pools[number]
        within = index - (self._ends[number] - self._counts[number])
        turn, position = divmod(self.epoch * self._counts[number] + within, len(pool))
        if self._shuffle and not pool.source.fresh:
            position = self._turn(number, turn)[position]
        return number, position if pool.kept is None else pool.kept[position], turn

    def _turn(self, number: int, turn: int) -> Permutation:
        key = (number, turn)
        if key not in self._turns:
            self._turns[key] = Permutation(len(self.pools[number]), self.seed, number, turn)
        return self._turns[key]


@dataclass(slots=True)
class TrainingData:
    """What a recipe's sources come to. ``validation`` may be empty."""

    train: ExampleDataset
    validation: ExampleDataset
    report: DataReport

    @property
    def tasks(self) -> list[str]:
        """Task names; an example's ``task`` is an index into them."""
        return self.train.tasks


def prepare(
    sources: Sequence[SourceSettings], validation: ValidationSettings, encoder: Encoder, seed: int, *,
    violations: bool = False, progress: Progress | None = None,
) -> TrainingData:  # fmt: skip
    """Read every source once, keep what fits, set validation apart. Raises SourceError when nothing is left.

    ``progress`` is called with the number of records looked at since the last call.
    """
    opened = [open_source(settings, seed) for settings in sources]
    tasks = list(dict.fromkeys(t for settings in (*sources, *validation.sources) for t in settings.task_names))
    share = 0.0 if validation.sources else validation.share
    report = DataReport()
    train, held = list[Pool](), list[Pool]()
    for source in opened:
        kept, apart, found = _inspect(source, encoder, share, seed, progress)
        report.sources.append(found)
        train.append(kept)
        held.append(apart)
    for settings in validation.sources:
        kept, _, found = _inspect(open_source(settings, seed + 1), encoder, 0.0, seed, progress)
        found.name, found.validation, found.kept = f"{found.name} (validation)", found.kept, 0
        report.sources.append(found)
        held.append(kept)
    data = TrainingData(
        ExampleDataset(train, encoder, tasks, seed, violations=violations),
        ExampleDataset(held, encoder, tasks, seed, shuffle=False, violations=violations),
        report,
    )
    report.examples, report.validation = len(data.train), len(data.validation)
    if not data.train:
        raise SourceError("sources: no record is left to train on. " + " ".join(report.reasons()))
    return data


def _inspect(
    source: Source, encoder: Encoder, share: float, seed: int, progress: Progress | None
) -> tuple[Pool, Pool, SourceReport]:
    """The pools for training and for validation of one source, and what was dropped."""
    settings = source.settings
    name = settings.name or (settings.task_names[0] if settings.jsonl else "procedural")
    origin = str(settings.jsonl.name) if settings.jsonl else ", ".join(settings.procedural or ())
    report = SourceReport(name, origin, settings.weight, sampled=source.fresh and len(source) > _SAMPLE)
    kept, keys = array("Q"), array("Q")
    for index in range(min(len(source), _SAMPLE) if source.fresh else len(source)):
        report.read += 1
        try:
            record, _ = source.record(index, 0)
            example = encoder.encode(record)
        except RecordError as error:
            report.drop(error.field + " " + error.message.split(":")[0].split(";")[0], lambda i=index: source.where(i))  # type: ignore[misc]
        except EncodingError as error:
            report.drop(error.reason, lambda i=index: source.where(i))  # type: ignore[misc]
        else:
            report.keep(len(example.input_ids), sum(example.labels_mask))
            kept.append(index)
            keys.append(int.from_bytes(record.key, "little"))
        if progress is not None:
            progress(1)
    if isinstance(source, ProceduralSource):
        apart = round(share * len(source)) if settings.split != "validation" else 0
        report.validation = apart
        held = ProceduralSource(settings, seed + 1, split="validation", count=max(1, apart))
        return Pool(source, None if kept else array("Q")), Pool(held, None if apart else array("Q")), report
    train, validation = _split(kept, keys, share, seed)
    report.validation = len(validation)
    return Pool(source, train), Pool(source, validation), report


def _split(kept: array[int], keys: array[int], share: float, seed: int) -> tuple[array[int], array[int]]:
    """Indexes for training and for validation: the smallest keys go apart, with whatever asks the same."""
    wanted = min(len(kept) - 1, max(1, round(share * len(kept)))) if share and len(kept) > 1 else 0
    if not wanted:
        return kept, array("Q")
    scrambled = array("Q", ((key ^ (seed * 0x9E3779B97F4A7C15)) & (2**64 - 1) for key in keys))
    border = sorted(scrambled)[wanted - 1]
    train = array("Q", (i for i, key in zip(kept, scrambled, strict=True) if key > border))
    return (train, array("Q", (i for i, key in zip(kept, scrambled, strict=True) if key <= border))) if train else (
        kept, array("Q"),
    )  # fmt: skip
