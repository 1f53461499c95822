"""The records that a run begins with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ift_training.data.generation.errors import GenerationError
from ift_training.data.generation.record import GeneratedRecord, Lineage, of_record
from ift_training.data.record_error import RecordError
from ift_training.data.settings import SourceSettings
from ift_training.data.sources import FileSource

SEED = "seed"
"""The step of records that nobody made."""


def read_seeds(path: Path) -> list[GeneratedRecord]:
    """Every record of a file, in any layout that is trained on. Raises SourceError, GenerationError.

    A seed that does not fit ends the run: what is made from the others would look the same without it.
    """
    source = FileSource(SourceSettings(file=path))
    found: list[GeneratedRecord] = []
    for index in range(len(source)):
        try:
            record, _ = source.record(index)
            lineage = Lineage(SEED, _origin(source.fields(index)), place=index)
        except RecordError as error:
            raise GenerationError(f"seeds: {source.where(index)}: {error}") from error
        found.append(of_record(record, lineage).judged("kept"))
    return found


def _origin(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The record of another store that a seed was written from; its lineage goes on there."""
    record_id = fields.get("id")
    return (record_id,) if "lineage" in fields and isinstance(record_id, str) else ()


def fingerprint(seeds: Sequence[GeneratedRecord]) -> str:
    """A hash of seeds and their order."""
    return hashlib.sha256("".join(seed.id for seed in seeds).encode()).hexdigest()[:16]
