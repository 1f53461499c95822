"""Findings as they come, in the file of the records: a run that is killed goes on, one that is repeated reuses them."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from ift_serve.checks.verdict import Span
from ift_serve.system.database import open_database, transaction
from ift_training.data.generation.store import MAKER, REVIEW
from ift_training.data.quality.errors import QualityError
from ift_training.data.quality.filters import Findings, packed, unpacked

_SCHEMA = """
CREATE TABLE IF NOT EXISTS findings (
    record TEXT NOT NULL, stage TEXT NOT NULL, fingerprint TEXT NOT NULL, found TEXT NOT NULL,
    PRIMARY KEY (record, stage)
) WITHOUT ROWID;
"""
_AT_ONCE = 500
"""Ids in one question to SQLite."""


class FindingStore:
    """What the filters of each stage found, by record. A fingerprint says what of: others are not read.

    A stage's findings of several records are written all together or not at all. Raises QualityError where the file
    cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._database = open_database(path, _SCHEMA)
        except sqlite3.Error as error:
            raise QualityError(f"{path}: findings cannot be kept there: {error}") from None

    def get(self, records: Sequence[str], stage: str, fingerprint: str) -> dict[str, Findings]:
        """What is there of these records, by id."""
        found: dict[str, Findings] = {}
        for start in range(0, len(records), _AT_ONCE):
            asked = records[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(asked))
            query = f"SELECT record, found FROM findings WHERE stage = ? AND fingerprint = ? AND record IN ({marks})"
            for record, text in self._database.execute(query, (stage, fingerprint, *asked)):
                found[record] = unpacked(json.loads(text))
        return found

    def put(self, stage: str, fingerprint: str, findings: Mapping[str, Findings]) -> None:
        """Keep findings by record, in place of older ones of the stage; for good when this returns."""
        rows = [(record, stage, fingerprint, json.dumps(packed(found))) for record, found in findings.items()]
        with self._lock, transaction(self._database):
            self._database.executemany("INSERT OR REPLACE INTO findings VALUES (?, ?, ?, ?)", rows)

    def spans(self, record: str) -> dict[str, Span]:
        """By filter: the characters of a record's answer that it points at."""
        with self._lock:
            rows = self._database.execute("SELECT found FROM findings WHERE record = ?", (record,)).fetchall()
        every = (found for (text,) in rows for found in unpacked(json.loads(text)).items())
        return {name: found.span for name, found in every if found.span is not None}

    def scores(self) -> Iterator[tuple[str, float]]:
        """Every score that there is, with the filter that it is of."""
        for (text,) in self._database.execute("SELECT found FROM findings ORDER BY record, stage"):
            for name, (score, _, _) in json.loads(text).items():
                if score is not None:
                    yield name, score

    def refused_by_maker(self) -> frozenset[str]:
        """Records that the step that made them rejected: there is nothing to judge about them."""
        return self._judged_by(MAKER, ("rejected",))

    def reviewed(self) -> Mapping[str, str]:
        """What a person said of records, by id."""
        query = "SELECT record, status FROM verdicts WHERE judge = ?"
        return dict(self._database.execute(query, (REVIEW,)).fetchall())

    def _judged_by(self, judge: str, statuses: Iterable[str]) -> frozenset[str]:
        query = "SELECT record FROM verdicts WHERE judge = ? AND status = ?"
        return frozenset(row[0] for status in statuses for row in self._database.execute(query, (judge, status)))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> FindingStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
