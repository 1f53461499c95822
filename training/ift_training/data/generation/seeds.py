"""The records that a run begins with."""

from __future__ import annotations

from pathlib import Path

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
        except RecordError as error:
            raise GenerationError(f"seeds: {source.where(index)}: {error}") from error
        found.append(of_record(record, Lineage(SEED, place=index)).judged("kept"))
    return found
