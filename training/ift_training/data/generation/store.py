"""One SQLite file for all that a run makes and pays for: records, verdicts on them, and answered calls."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.serving.result_store import ResultStore
from ift_serve.system.database import open_database, transaction
from ift_training.data.generation.errors import GenerationError
from ift_training.data.generation.record import GeneratedRecord, Reason, Status, of_content

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, step TEXT NOT NULL, status TEXT NOT NULL,
    content TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS records_by_status ON records (status, place);
CREATE TABLE IF NOT EXISTS verdicts (
    record TEXT NOT NULL, judge TEXT NOT NULL, status TEXT NOT NULL, reasons TEXT NOT NULL, PRIMARY KEY (record, judge)
);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_WORST_FIRST: tuple[Status, ...] = ("rejected", "flagged", "kept")
MAKER = "maker"
"""The judge that a record is born with: the step that made it."""
REVIEW = "review"
"""The judge whose word is final: a person."""
_READ_AT_ONCE = 256


class RecordStore:
    """Records in the order in which they were made, each once. Every change is there for good when its call returns.

    A process that is killed at any moment loses what was in flight and nothing else; several processes may share a
    file. ``calls`` are the answers of servers, in the same file. A record's status is what a person said of it, else
    the worst that a judge did, and ``pending`` before anybody spoke. Without a path everything lives as long as the
    object. Raises GenerationError where the file cannot be used.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            self.calls = ResultStore(path)
            self._database = open_database(path, _SCHEMA)
        except (sqlite3.Error, OSError, EvaluationError) as error:
            raise GenerationError(f"{path}: records cannot be kept there: {error}") from None

    def put(self, record: GeneratedRecord) -> bool:
        """Keep a record with the status and reasons that it is born with. Whether it is new."""
        return self.put_all([record]) == 1

    def put_all(self, records: Iterable[GeneratedRecord]) -> int:
        """Keep several, all of them or none if the process dies within. How many are new."""
        new = 0
        with self._transaction():
            for record in records:
                row = (record.id, record.lineage.step, record.status, json.dumps(record.content()))
                added = self._database.execute(
                    "INSERT OR IGNORE INTO records (id, step, status, content) VALUES (?, ?, ?, ?)", row
                ).rowcount
                new += added
                if added and record.status != "pending":
                    self._write_verdict(record.id, MAKER, record.status, record.reasons)
        return new

    def judge(self, record_id: str, judge: str, status: Status, reasons: Sequence[Reason] = ()) -> Status:
        """Keep what a judge says, in place of what the same judge said before; the record's status now.

        ``pending`` takes the judge's word back. Raises KeyError for a record that is not there.
        """
        with self._transaction():
            return self._judge(record_id, judge, status, reasons)

    def judge_all(self, judge: str, said: Iterable[tuple[str, Status, Sequence[Reason]]]) -> None:
        """What a judge says of several records, all of it or nothing. Raises KeyError, as :meth:`judge` does."""
        with self._transaction():
            for record_id, status, reasons in said:
                self._judge(record_id, judge, status, reasons)

    def get(self, record_id: str) -> GeneratedRecord | None:
        """A record as it stands now."""
        with self._lock:
            row = self._row(record_id)
            return None if row is None else self._record(*row)

    def verdicts(self, record_id: str) -> dict[str, tuple[Status, tuple[Reason, ...]]]:
        """What each judge says of a record, in the order of their names."""
        with self._lock:
            query = "SELECT judge, status, reasons FROM verdicts WHERE record = ? ORDER BY judge"
            rows = self._database.execute(query, (record_id,)).fetchall()
        return {judge: (status, _reasons(reasons)) for judge, status, reasons in rows}

    def records(self, *, status: Status | None = None, step: str | None = None) -> Iterator[GeneratedRecord]:
        """Records in the order in which they were made, read in pieces, so that a store may be larger than memory.

        step: of this step, or of steps below it: ``evolve`` finds ``evolve.constraint`` too.
        """
        wanted, values = ["place > ?"], list[Any]()
        if status is not None:
            wanted.append("status = ?")
            values.append(status)
        if step is not None:
            wanted.append("(step = ? OR substr(step, 1, ?) = ?)")
            values += [step, len(step) + 1, f"{step}."]
        query = f"SELECT place, id, status, content FROM records WHERE {' AND '.join(wanted)} ORDER BY place LIMIT ?"
        place = 0
        while True:
            with self._lock:
                rows = self._database.execute(query, (place, *values, _READ_AT_ONCE)).fetchall()
                found = [self._record(*row[1:]) for row in rows]
            if not rows:
                return
            place = rows[-1][0]
            yield from found

    def counts(self) -> Counter[tuple[str, Status]]:
        """Numbers of records by step and status."""
        with self._lock:
            rows = self._database.execute("SELECT step, status, count(*) FROM records GROUP BY step, status").fetchall()
        return Counter({(step, status): count for step, status, count in rows})

    def reasons(self) -> Counter[tuple[str, Status, str]]:
        """Numbers of reasons by the record's step, the judge's verdict, and the reason's name."""
        query = (
            "SELECT step, verdicts.status, json_extract(reason.value, '$.name'), count(*) FROM verdicts "
            "JOIN records ON records.id = record, json_each(reasons) AS reason GROUP BY 1, 2, 3"
        )
        with self._lock:
            rows = self._database.execute(query).fetchall()
        return Counter({(step, status, name): count for step, status, name, count in rows})

    def set_note(self, name: str, value: Any) -> None:
        """Keep a plain value about the whole run, such as its recipe."""
        with self._transaction():
            self._database.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value)))

    def note(self, name: str) -> Any:
        """What was kept under a name, or None."""
        with self._lock:
            row = self._database.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def __len__(self) -> int:
        with self._lock:
            return int(self._database.execute("SELECT count(*) FROM records").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self.calls.close()
            self._database.close()

    def __enter__(self) -> RecordStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of what is written within, or nothing; other threads and processes wait."""
        with self._lock, transaction(self._database):
            yield

    def _row(self, record_id: str) -> tuple[str, Status, str] | None:
        query = "SELECT id, status, content FROM records WHERE id = ?"
        row: tuple[str, Status, str] | None = self._database.execute(query, (record_id,)).fetchone()
        return row

    def _record(self, record_id: str, status: Status, content: str) -> GeneratedRecord:
        said = self.verdicts(record_id)
        return of_content(json.loads(content), status, tuple(r for _, reasons in said.values() for r in reasons))

    def _judge(self, record_id: str, judge: str, status: Status, reasons: Sequence[Reason]) -> Status:
        if self._row(record_id) is None:
            raise KeyError(record_id)
        if status == "pending":
            self._database.execute("DELETE FROM verdicts WHERE record = ? AND judge = ?", (record_id, judge))
        else:
            self._write_verdict(record_id, judge, status, reasons)
        found = self._status(record_id)
        self._database.execute("UPDATE records SET status = ? WHERE id = ?", (found, record_id))
        return found

    def _status(self, record_id: str) -> Status:
        said = {judge: status for judge, (status, _) in self.verdicts(record_id).items()}
        if REVIEW in said:
            return said[REVIEW]
        return next((status for status in _WORST_FIRST if status in said.values()), "pending")

    def _write_verdict(self, record_id: str, judge: str, status: Status, reasons: Sequence[Reason]) -> None:
        row = (record_id, judge, status, json.dumps([asdict(reason) for reason in reasons]))
        self._database.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)", row)


def _reasons(text: str) -> tuple[Reason, ...]:
    return tuple(Reason(**values) for values in json.loads(text))
