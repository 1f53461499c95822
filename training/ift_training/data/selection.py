"""Reads every source once before the training: what is kept, what is set apart, what is dropped and why."""

from __future__ import annotations

import functools
import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ift_training.data.dropped import DroppedRecords
from ift_training.data.encode import Encoder, EncodingError
from ift_training.data.lost import check_nothing_missing
from ift_training.data.mixture import ExampleDataset, Pool
from ift_training.data.negatives import NegativeCounter
from ift_training.data.record_error import RecordError
from ift_training.data.records import Record
from ift_training.data.report import DataReport, SourceReport
from ift_training.data.settings import SourceSettings, ValidationSettings
from ift_training.data.sources import ProceduralSource, Source, open_source
from ift_training.data.trained_on import names_of
from ift_training.data.violations import violate

_SAMPLE = 256
"""Procedural examples looked at before the start; there is no end of them."""
_MIX = 0x9E3779B97F4A7C15

Progress = Callable[[int], None]


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
    sources: Sequence[SourceSettings],
    validation: ValidationSettings,
    encoder: Encoder,
    seed: int,
    *,
    violations: bool = False,
    progress: Progress | None = None,
    dropped: DroppedRecords | None = None,
) -> TrainingData:
    """Read every source once, keep what fits, set validation apart. Raises SourceError where nothing is left of one.

    ``progress`` is called with the number of records looked at since the last call; ``dropped`` gets every record that
    is not used.
    """
    opened = [open_source(settings, seed) for settings in sources]
    tasks = list(dict.fromkeys(t for settings in (*sources, *validation.sources) for t in settings.task_names))
    share = 0.0 if validation.sources else validation.share
    report = DataReport()
    train, held = list[Pool](), list[Pool]()
    negatives = NegativeCounter(encoder.max_length) if violations else None
    reader = _Reader(encoder, negatives, progress, dropped)
    for number, source in enumerate(opened):
        kept, apart, found = _inspect(source, reader, share, seed, f"sources.{number}")
        report.sources.append(found)
        train.append(kept)
        held.append(apart)
    if negatives is not None:
        negatives.finish()
    for number, settings in enumerate(validation.sources):
        source = open_source(settings, seed + 1)
        kept, _, found = _inspect(source, reader, 0.0, seed, f"validation.sources.{number}")
        found.name, found.validation, found.kept = f"{found.name} (validation)", found.kept, 0
        report.sources.append(found)
        held.append(kept)
    check_nothing_missing(report)
    data = TrainingData(
        ExampleDataset(train, encoder, tasks, seed, violations=violations),
        ExampleDataset(held, encoder, tasks, seed, training=False, violations=violations),
        report,
    )
    report.examples, report.validation = len(data.train), len(data.validation)
    return data


@dataclass(frozen=True, slots=True)
class _Reader:
    """How records are looked at."""

    encoder: Encoder
    negatives: NegativeCounter | None
    progress: Progress | None
    dropped: DroppedRecords | None

    def read(self, source: Source, report: SourceReport) -> tuple[array[int], array[int]]:
        """Indexes of the records that become examples, and the keys of their prompts."""
        kept, keys = array("Q"), array("Q")
        for index in range(min(len(source), _SAMPLE) if source.fresh else len(source)):
            report.read += 1
            try:
                record, task = source.record(index, 0)
                self._keep(record, task, index, report)
            except RecordError as error:
                report.drop(error, functools.partial(source.where, index))
                if self.dropped is not None:
                    self.dropped.add(report.path, source.where(index), error)
            else:
                kept.append(index)
                keys.append(int.from_bytes(record.key, "little"))
            if self.progress is not None:
                self.progress(1)
        return kept, keys

    def _keep(self, record: Record, task: str, index: int, report: SourceReport) -> None:
        """Count a record as an example. Raises EncodingError."""
        report.tasks.setdefault(task, 0)
        wrong = violate(record, random.Random(index)) if self.negatives is not None else None
        try:
            example = self.encoder.encode(record, violating=wrong)
        except EncodingError as error:
            if error.length is not None:
                report.lengths.append(error.length)
            raise
        report.keep(len(example.input_ids), sum(example.labels_mask), task)
        report.trained_on |= names_of(record)
        if record.example is None:
            report.mark(self.encoder.typed_markers(record))
        if self.negatives is not None:
            self.negatives.add(report, example)
            if record.checks:
                report.judged += 1
                report.contrasted += example.violating is not None


def _inspect(source: Source, reader: _Reader, share: float, seed: int, path: str) -> tuple[Pool, Pool, SourceReport]:
    """The pools for training and for validation of one source, and what was dropped."""
    settings = source.settings
    name = settings.name or (settings.task_names[0] if settings.file else "procedural")
    origin = str(settings.file.name) if settings.file else ", ".join(settings.procedural or ())
    report = SourceReport(name, origin, settings.weight, path, sampled=source.fresh and len(source) > _SAMPLE)
    report.parsed = reader.encoder.renderer.parse_special_tokens
    report.listed = reader.dropped.name if reader.dropped is not None else ""
    report.notes = list(source.notes)
    kept, keys = reader.read(source, report)
    if isinstance(source, ProceduralSource):
        # Families take turns, so that each needs one example at least to be validated on.
        report.validation = max(round(share * len(source)), len(source.names)) if share else 0
        held = ProceduralSource(settings, seed + 1, split="validation", count=max(1, report.validation))
        nothing = array("Q")
        return Pool(source, None if kept else nothing), Pool(held, None if report.validation else nothing), report
    train, validation = _split(kept, keys, share, seed)
    report.validation = len(validation)
    if share and kept and not validation:
        why = "there is one only" if len(kept) == 1 else "all ask the same"
        report.notes.append(f"{name}: no record is set apart for validation, because {why}")
    return Pool(source, train), Pool(source, validation), report


def _split(kept: array[int], keys: array[int], share: float, seed: int) -> tuple[array[int], array[int]]:
    """Indexes for training and for validation: the smallest keys go apart, with whatever asks the same."""
    wanted = min(len(kept) - 1, max(1, round(share * len(kept)))) if share and len(kept) > 1 else 0
    if not wanted:
        return kept, array("Q")
    scrambled = np.frombuffer(keys, dtype=np.uint64) ^ np.uint64(seed * _MIX % 2**64)
    apart = scrambled <= np.partition(scrambled, wanted - 1)[wanted - 1]
    if apart.all():
        return kept, array("Q")
    indexes = np.frombuffer(kept, dtype=np.uint64)
    return array("Q", indexes[~apart].tobytes()), array("Q", indexes[apart].tobytes())
