"""Flagged records given out to reviewers one by one, and what they decide; all of it in the file of the records."""

from __future__ import annotations

import fcntl
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ift_serve.system.database import open_database, transaction
from ift_training.data.generation.record import GeneratedRecord, Lineage, Reason, Status
from ift_training.data.generation.store import REVIEW, RecordStore
from ift_training.data.quality.errors import QualityError
from ift_training.data.quality.review.agreement import Agreement, agreements

Choice = Literal["accept", "edit", "reject"]
CHOICES: tuple[Choice, ...] = ("accept", "edit", "reject")
EDITED = ("instruction", "context", "response")
"""Parts of a record that may be edited."""
EDIT_STEP = "review.edit"
"""The step of a record that a reviewer wrote over another."""
FIRST, SECOND, SETTLED = 1, 2, 3
"""Rounds: the decision that counts, a second opinion for the agreement, the last word where two disagree."""
_LEASE_SECONDS = 1800.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS reviews (
    number INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL, round INTEGER NOT NULL, reviewer TEXT NOT NULL,
    choice TEXT NOT NULL, edited TEXT NOT NULL, time REAL NOT NULL, undone INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX IF NOT EXISTS one_review_a_round ON reviews (record, round) WHERE undone = 0;
CREATE INDEX IF NOT EXISTS reviews_of ON reviews (reviewer, undone, number);
CREATE TABLE IF NOT EXISTS review_leases (
    record TEXT PRIMARY KEY, round INTEGER NOT NULL, reviewer TEXT NOT NULL UNIQUE, seen REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS review_drafts (
    record TEXT NOT NULL, reviewer TEXT NOT NULL, draft TEXT NOT NULL, PRIMARY KEY (record, reviewer)
);
"""


class NotYoursError(QualityError):
    """A record that the reviewer does not have: somebody else has it, or it is decided."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A record that a reviewer has. draft: what was edited and not decided. earlier: decisions that are in dispute."""

    record: GeneratedRecord
    round: int
    draft: Mapping[str, str] | None
    earlier: tuple[str, ...] = ()


class ReviewQueue:
    """Gives each flagged record to one reviewer at a time, in the order of their making.

    A reviewer has one record until it is decided or released, also after a reload or a restart; one that was not
    touched for ``lease`` seconds may go to another. A share of the decided records (``overlap``, by a hash of their
    ids) is given to a second reviewer, whose opinion counts for the agreement; where the two disagree, the record
    comes once more, and that decision counts. Several servers may share a file.
    """

    def __init__(
        self,
        store: RecordStore,
        *,
        overlap: float = 0.1,
        lease: float = _LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if store.path is None:
            raise QualityError("the records must be in a file")
        self._store, self._overlap, self._lease, self._clock = store, overlap, lease, clock
        self._lock = threading.RLock()
        try:
            self._turns = open(f"{store.path}-turns", "ab")  # noqa: SIM115 - held for as long as the file
            # A decision of a person is there for good when the page has been told, whatever the machine does.
            self._database = open_database(store.path, _SCHEMA, durable=True)
        except (OSError, sqlite3.Error) as error:
            raise QualityError(f"{store.path}: reviews cannot be kept there: {error}") from None
        self.reconcile()

    def reconcile(self) -> None:
        """Tell the store of every decision: one that was written just before a process died counts too."""
        with self._lock:
            records = self._rows("SELECT DISTINCT record FROM reviews")
            for (record,) in records:
                self._tell(record)

    def current(self, reviewer: str, reason: str = "") -> Assignment | None:
        """The record that the reviewer has, or the next one with a reason of that name; None where none is left."""
        with self._transaction():
            now = self._clock()
            own = self._row("SELECT record, round FROM review_leases WHERE reviewer = ?", reviewer)
            if own is not None:
                if not reason or self._has_reason(own[0], reason):
                    self._touch(reviewer, now)
                    return self._assignment(own[0], own[1], reviewer)
                self._release(reviewer)
            found = self._next(reviewer, reason, now)
            if found is None:
                return None
            self._database.execute(
                "INSERT OR REPLACE INTO review_leases VALUES (?, ?, ?, ?)", (found[0], found[1], reviewer, now)
            )
        return self._assignment(found[0], found[1], reviewer)

    def save_draft(self, reviewer: str, record: str, draft: Mapping[str, str] | None) -> None:
        """Keep what was edited so far, or forget it. Raises NotYoursError."""
        with self._transaction():
            self._own_round(reviewer, record)
            self._touch(reviewer, self._clock())
            if draft is None:
                self._database.execute(
                    "DELETE FROM review_drafts WHERE record = ? AND reviewer = ?", (record, reviewer)
                )
            else:
                row = (record, reviewer, json.dumps(_parts(draft)))
                self._database.execute("INSERT OR REPLACE INTO review_drafts VALUES (?, ?, ?)", row)

    def decide(self, reviewer: str, record: str, choice: Choice, edited: Mapping[str, str] | None = None) -> None:
        """What the reviewer says of the record. Raises NotYoursError, QualityError for an edit without an answer."""
        parts = _parts(edited) if choice == "edit" and edited is not None else None
        if choice == "edit" and (parts is None or not parts["instruction"].strip() or not parts["response"].strip()):
            raise QualityError("edited: give an instruction and an answer that are not blank")
        with self._transaction():
            own = self._own_round(reviewer, record)
            row = (record, own, reviewer, choice, json.dumps(parts), self._clock())
            self._database.execute(
                "INSERT INTO reviews (record, round, reviewer, choice, edited, time) VALUES (?, ?, ?, ?, ?, ?)", row
            )
            self._release(reviewer)
            self._database.execute("DELETE FROM review_drafts WHERE record = ? AND reviewer = ?", (record, reviewer))
        self._tell(record)

    def undo(self, reviewer: str) -> str | None:
        """Take the reviewer's last decision back, with what was edited; its record, None where there is none.

        The record is the reviewer's again. Raises NotYoursError where somebody else has it now.
        """
        with self._transaction():
            last = self._row(
                "SELECT number, record, round, edited FROM reviews WHERE reviewer = ? AND undone = 0 "
                "ORDER BY number DESC LIMIT 1", reviewer,
            )  # fmt: skip
            if last is None:
                return None
            number, record, own, edited = last
            now = self._clock()
            held = self._row(
                "SELECT reviewer FROM review_leases WHERE record = ? AND seen > ?", record, now - self._lease
            )
            if held is not None and held[0] != reviewer:
                raise NotYoursError(f"{held[0]} is looking at this record now; try again later")
            if self._row("SELECT 1 FROM reviews WHERE record = ? AND round > ? AND undone = 0", record, own):
                raise NotYoursError("another reviewer has looked at this record since; it can no longer be undone")
            self._database.execute("UPDATE reviews SET undone = 1 WHERE number = ?", (number,))
            self._release(reviewer)
            self._database.execute(
                "INSERT OR REPLACE INTO review_leases VALUES (?, ?, ?, ?)", (record, own, reviewer, now)
            )
            if json.loads(edited) is not None:
                self._database.execute(
                    "INSERT OR REPLACE INTO review_drafts VALUES (?, ?, ?)", (record, reviewer, edited)
                )
        self._tell(record)
        return str(record)

    def reasons(self) -> dict[str, int]:
        """Flagged records by the names of their reasons."""
        query = (
            "SELECT json_extract(reason.value, '$.name'), count(DISTINCT record) FROM verdicts "
            "JOIN records ON records.id = record, json_each(reasons) AS reason "
            "WHERE records.status = 'flagged' AND verdicts.status = 'flagged' GROUP BY 1 ORDER BY 1"
        )
        with self._lock:
            return dict(self._rows(query))

    def progress(self, reviewer: str) -> dict[str, int]:
        """waiting: flagged records; decided: records that a person decided about; own: of them by this reviewer."""
        with self._lock:
            waiting = self._rows("SELECT count(*) FROM records WHERE status = 'flagged'")[0][0]
            decided = self._rows("SELECT count(DISTINCT record) FROM reviews WHERE undone = 0 AND round = 1")[0][0]
            query = "SELECT count(*) FROM reviews WHERE undone = 0 AND reviewer = ?"
            own = self._database.execute(query, (reviewer,)).fetchone()[0]
        return {"waiting": waiting, "decided": decided, "own": own}

    def agreement(self) -> list[Agreement]:
        """Between all that looked at the same records."""
        query = (
            "SELECT a.reviewer, a.choice, b.reviewer, b.choice FROM reviews a JOIN reviews b ON a.record = b.record "
            "WHERE a.round = 1 AND b.round = 2 AND a.undone = 0 AND b.undone = 0"
        )
        with self._lock:
            return agreements(self._rows(query))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()
            self._turns.close()

    def _next(self, reviewer: str, reason: str, now: float) -> tuple[str, int] | None:
        """A dispute, a second opinion, or the next flagged record, that nobody else has."""
        self._database.execute("DELETE FROM review_leases WHERE seen <= ?", (now - self._lease,))
        free = "record NOT IN (SELECT record FROM review_leases)"
        disputed = self._rows(
            "SELECT a.record FROM reviews a JOIN reviews b ON a.record = b.record WHERE a.round = 1 AND b.round = 2 "
            "AND a.undone = 0 AND b.undone = 0 AND a.choice <> b.choice AND a.record NOT IN "
            f"(SELECT record FROM reviews WHERE round = 3 AND undone = 0) AND a.{free} ORDER BY b.number"
        )
        second = self._database.execute(
            "SELECT record FROM reviews r WHERE round = 1 AND undone = 0 AND reviewer <> ? AND NOT EXISTS "
            f"(SELECT 1 FROM reviews o WHERE o.record = r.record AND o.round = 2 AND o.undone = 0) AND {free} "
            "ORDER BY number", (reviewer,),
        )  # fmt: skip
        flagged = self._database.execute(
            "SELECT id FROM records WHERE status = 'flagged' AND id NOT IN (SELECT record FROM review_leases) "
            "AND id NOT IN (SELECT record FROM reviews WHERE undone = 0) ORDER BY place"
        )
        every: Iterator[tuple[str, int]] = (
            (record, round_)
            for round_, rows in ((SETTLED, disputed), (SECOND, second), (FIRST, flagged))
            for (record,) in rows
            if round_ != SECOND or self._is_doubled(record)
        )
        return next((one for one in every if not reason or self._has_reason(one[0], reason)), None)

    def _is_doubled(self, record: str) -> bool:
        """Whether a record is among those that two reviewers see."""
        drawn = int.from_bytes(hashlib.sha256(f"overlap/{record}".encode()).digest()[:8], "little") / 2**64
        return drawn < self._overlap

    def _has_reason(self, record: str, name: str) -> bool:
        said = self._store.verdicts(record)
        return any(
            reason.name == name for status, reasons in said.values() if status == "flagged" for reason in reasons
        )

    def _assignment(self, record: str, round_: int, reviewer: str) -> Assignment:
        found = self._store.get(record)
        assert found is not None, "records are never deleted"
        earlier: tuple[str, ...] = ()
        with self._lock:  # a statement that still reads would be part of another thread's transaction
            draft = self._row("SELECT draft FROM review_drafts WHERE record = ? AND reviewer = ?", record, reviewer)
            if round_ == SETTLED:
                query = (
                    "SELECT reviewer, choice FROM reviews WHERE record = ? AND undone = 0 AND round < 3 ORDER BY round"
                )
                earlier = tuple(f"{who}: {choice}" for who, choice in self._database.execute(query, (record,)))
        return Assignment(found, round_, None if draft is None else json.loads(draft[0]), earlier)

    def _tell(self, record: str) -> None:
        """Make the store say what the decision that counts is; taking the same step twice changes nothing.

        The store writes by a connection of its own, to the same file, so it waits for its turn as reviewers do.
        """
        with self._lock, self._turn():
            self._tell_store(record)

    def _tell_store(self, record: str) -> None:
        query = (
            "SELECT number, reviewer, choice, edited FROM reviews WHERE record = ? AND undone = 0 AND round <> 2 "
            "ORDER BY round DESC LIMIT 1"
        )
        last = self._row(query, record)
        every = self._database.execute(
            "SELECT number, edited FROM reviews WHERE record = ? AND choice = 'edit' AND round <> 2", (record,)
        ).fetchall()
        for number, edited in every:
            if last is None or number != last[0]:
                made = self._edited(record, number, json.loads(edited))
                if self._store.get(made.id) is not None:
                    self._say(made.id, "rejected", Reason("review", "the edit was taken back"))
        if last is None:
            self._say(record, "pending")
            return
        number, reviewer, choice, edited = last
        if choice == "edit":
            made = self._edited(record, number, json.loads(edited))
            self._store.put(made)
            self._say(made.id, "kept", Reason("review", f"edited by {reviewer}"))
            self._say(record, "rejected", Reason("review", f"edited by {reviewer} as {made.id}"))
        elif choice == "accept":
            self._say(record, "kept", Reason("review", f"accepted by {reviewer}"))
        else:
            self._say(record, "rejected", Reason("review", f"rejected by {reviewer}"))

    def _say(self, record: str, status: Status, *reasons: Reason) -> None:
        if self._store.verdicts(record).get(REVIEW) != ((status, reasons) if status != "pending" else None):
            self._store.judge(record, REVIEW, status, reasons)

    def _edited(self, record: str, number: int, parts: Mapping[str, str]) -> GeneratedRecord:
        old = self._store.get(record)
        assert old is not None, "records are never deleted"
        lineage = Lineage(EDIT_STEP, (record,), seed=old.lineage.seed, place=number)
        return replace(
            old, instruction=parts["instruction"], context=parts["context"], response=parts["response"],
            lineage=lineage, status="pending", reasons=(),
        )  # fmt: skip

    def _own_round(self, reviewer: str, record: str) -> int:
        found = self._row("SELECT round FROM review_leases WHERE record = ? AND reviewer = ?", record, reviewer)
        if found is None:
            raise NotYoursError("this record is no longer yours: it was decided, or given to another reviewer")
        return int(found[0])

    def _touch(self, reviewer: str, now: float) -> None:
        self._database.execute("UPDATE review_leases SET seen = ? WHERE reviewer = ?", (now, reviewer))

    def _release(self, reviewer: str) -> None:
        self._database.execute("DELETE FROM review_leases WHERE reviewer = ?", (reviewer,))

    def _row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._database.execute(query, values).fetchone()
        return row

    def _rows(self, query: str) -> list[Any]:
        return self._database.execute(query).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of what is written within, or nothing; other threads and processes wait."""
        with self._lock, self._turn(), transaction(self._database):
            yield

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """SQLite looks for a free file every tenth of a second, and busy neighbours can always be faster; who waits
        for a lock of the system is woken."""
        fcntl.flock(self._turns, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._turns, fcntl.LOCK_UN)


def _parts(given: Mapping[str, str]) -> dict[str, str]:
    """The parts of a record that may be edited, each a text. Raises QualityError."""
    if set(given) != set(EDITED) or not all(isinstance(text, str) for text in given.values()):
        raise QualityError(f"edited: give texts for {', '.join(EDITED)}")
    return {name: given[name] for name in EDITED}


def plain(found: Agreement) -> dict[str, Any]:
    """Plain values of an agreement."""
    return asdict(found)
