"""Reads every source once before the training: what is kept, what is set apart, what is dropped and why."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ift_training.data.encode import Encoder, EncodingError
from ift_training.data.mixture import ExampleDataset, Pool
from ift_training.data.records import RecordError
from ift_training.data.report import DataReport, SourceReport
from ift_training.data.settings import SourceSettings, ValidationSettings
from ift_training.data.sources import ProceduralSource, Source, SourceError, open_source

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
    if any(found.kept for found in report.sources):
        _check_each(report)
    for settings in validation.sources:
        kept, _, found = _inspect(open_source(settings, seed + 1), encoder, 0.0, seed, progress)
        found.name, found.validation, found.kept = f"{found.name} (validation)", found.kept, 0
        report.sources.append(found)
        held.append(kept)
    data = TrainingData(
        ExampleDataset(train, encoder, tasks, seed, violations=violations),
        ExampleDataset(held, encoder, tasks, seed, training=False, violations=violations),
        report,
    )
    report.examples, report.validation = len(data.train), len(data.validation)
    if not data.train:
        raise SourceError("sources: no record is left to train on. " + " ".join(report.reasons()))
    return data


def _check_each(report: DataReport) -> None:
    """A source that gives nothing would be missing from the training unnoticed."""
    for number, found in enumerate(report.sources):
        if not found.kept:
            reasons = " ".join(DataReport([found]).reasons())
            raise SourceError(
                f"sources.{number}: no record of {found.name} can be used; mend it or take it out. {reasons}"
            )


def _inspect(
    source: Source, encoder: Encoder, share: float, seed: int, progress: Progress | None
) -> tuple[Pool, Pool, SourceReport]:
    """The pools for training and for validation of one source, and what was dropped."""
    settings = source.settings
    name = settings.name or (settings.task_names[0] if settings.file else "procedural")
    origin = str(settings.file.name) if settings.file else ", ".join(settings.procedural or ())
    report = SourceReport(name, origin, settings.weight, sampled=source.fresh and len(source) > _SAMPLE)
    report.notes = list(source.notes)
    kept, keys = _read(source, encoder, report, progress)
    if isinstance(source, ProceduralSource):
        report.validation = round(share * len(source)) if settings.split != "validation" else 0
        held = ProceduralSource(settings, seed + 1, split="validation", count=max(1, report.validation))
        nothing = array("Q")
        return Pool(source, None if kept else nothing), Pool(held, None if report.validation else nothing), report
    train, validation = _split(kept, keys, share, seed)
    report.validation = len(validation)
    return Pool(source, train), Pool(source, validation), report


def _read(
    source: Source, encoder: Encoder, report: SourceReport, progress: Progress | None
) -> tuple[array[int], array[int]]:
    """Indexes of the records that become examples, and the keys of their prompts."""
    kept, keys = array("Q"), array("Q")
    for index in range(min(len(source), _SAMPLE) if source.fresh else len(source)):
        report.read += 1
        where = functools.partial(source.where, index)
        try:
            record, _ = source.record(index, 0)
            example = encoder.encode(record)
        except RecordError as error:
            report.drop(error.kind, where, f"{error.field} {error.message}")
        except EncodingError as error:
            report.drop(error.reason, where)
        else:
            report.keep(len(example.input_ids), sum(example.labels_mask))
            kept.append(index)
            keys.append(int.from_bytes(record.key, "little"))
        if progress is not None:
            progress(1)
    return kept, keys


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
