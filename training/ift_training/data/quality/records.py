"""Records of a store as pairs for the filters, with the references that a file has for them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ift_training.data.generation.record import GeneratedRecord, Lineage, of_record
from ift_training.data.generation.store import RecordStore
from ift_training.data.quality.errors import QualityError
from ift_training.data.quality.pair import Pair
from ift_training.data.record_error import RecordError
from ift_training.data.records import Record
from ift_training.data.settings import SourceSettings
from ift_training.data.sources import FileSource

IMPORTED = "file"
"""The step of records that were read from a file."""
_AT_ONCE = 1000
References = Mapping[str, tuple[str, ...]]
"""Good answers by what is asked."""


def pair_of(record: GeneratedRecord, references: References | None = None) -> Pair:
    """The record as filters look at it."""
    good = (references or {}).get(record.asked, ())
    earlier = tuple(turn.content for turn in record.history)
    return Pair(record.id, record.instruction, record.response, record.context, earlier, record.checks, good)


def judged_pairs(
    store: RecordStore, refused: Collection[str], passed_over: Collection[str], references: References | None = None
) -> Iterator[tuple[Pair, bool]]:
    """All records with an answer but those that their maker refused, in their order; whether each is judged.

    passed_over: steps whose records are taken as good.
    """
    for record in store.records():
        if not record.response.strip():
            continue
        pair = pair_of(record, references)
        if pair.id not in refused:
            yield pair, not any(_is_of(record.lineage.step, step) for step in passed_over)


def _is_of(step: str, wanted: str) -> bool:
    return step == wanted or step.startswith(f"{wanted}.")


def import_records(path: Path, store: RecordStore) -> int:
    """Put the records of a data file into a store; how many are new. A second run adds none.

    Raises QualityError for a record that cannot be read: nothing is left out in silence; SourceError for a file.
    """
    new, found = 0, list[GeneratedRecord]()
    for place, record in enumerate(_read(path)):
        found.append(of_record(record, Lineage(IMPORTED, place=place)))
        if len(found) == _AT_ONCE:
            new += store.put_all(found)
            found = []
    return new + store.put_all(found)


def read_references(path: Path) -> References:
    """Good answers of a data file. Raises QualityError, SourceError."""
    found: dict[str, tuple[str, ...]] = {}
    for record in _read(path):
        made = of_record(record, Lineage("reference"))
        found[made.asked] = (*found.get(made.asked, ()), made.response)
    return found


def _read(path: Path) -> Iterator[Record]:
    """Records whatever their own checks say: that is for the filters to judge."""
    source = FileSource(SourceSettings(file=path))
    for place in range(len(source)):
        try:
            yield source.unjudged(place)
        except RecordError as error:
            raise QualityError(
                f"{source.where(place)}: {error}; write the records that fit with `ift-serve data convert`"
            ) from error
