"""SQLite files that several threads and processes write: opened one way."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BUSY_SECONDS = 30.0


def open_database(path: Path | None, schema: str, *, durable: bool = False) -> sqlite3.Connection:
    """A file with the schema's tables, made where it is not there; in memory without a path.

    The connection commits every statement by itself, begins no transaction unasked, may be used from any thread, one
    at a time, and waits for other writers. What is written survives the end of the process, and with ``durable`` that
    of the machine. schema: statements that may run again. Raises sqlite3.Error.
    """
    connection = sqlite3.connect(
        ":memory:" if path is None else path,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.executescript(schema)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of what is written within, or nothing, also where it cannot be committed; other writers wait.

    The caller keeps other threads from the connection. Raises sqlite3.Error.
    """
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
