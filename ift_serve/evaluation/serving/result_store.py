"""Answers as they come, in SQLite, by everything that they depend on; so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.serving.outcomes import Answer, LogLikelihood, packed, unpacked
from ift_serve.evaluation.serving.requests import canonical
from ift_serve.system.database import open_database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, request TEXT NOT NULL, outcome TEXT NOT NULL,
    created REAL NOT NULL
)
"""


class ResultStore:
    """Outcomes of requests to models. Failures are not kept: the same command again asks anew.

    Every outcome is committed when it comes: a process that is killed loses only what was in flight. Several
    processes may share a file. Without a path, outcomes are kept for as long as the object lives.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = open_database(path, _SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise EvaluationError(f"{path}: results cannot be kept there: {error}") from None

    def get(self, model: Mapping[str, Any], request: Mapping[str, Any]) -> Answer | LogLikelihood | None:
        """What the model answered to the request, or None."""
        with self._lock:
            query = "SELECT outcome FROM results WHERE key = ?"
            row = self._database.execute(query, (_key(model, request),)).fetchone()
        return None if row is None else unpacked(json.loads(row[0]))

    def put(self, model: Mapping[str, Any], request: Mapping[str, Any], outcome: Answer | LogLikelihood) -> None:
        """Keep an outcome, for good when this returns."""
        row = (_key(model, request), canonical(model), canonical(request), json.dumps(packed(outcome)), time.time())
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)", row)

    def usage(self) -> tuple[int, int]:
        """Tokens of all prompts, and of all answers."""
        query = "SELECT total(json_extract(outcome, '$.prompt_tokens')), total(json_extract(outcome, ?)) FROM results"
        with self._lock:
            prompt, generated = self._database.execute(query, ("$.generated_tokens",)).fetchone()
        return int(prompt), int(generated)

    def __len__(self) -> int:
        with self._lock:
            return int(self._database.execute("SELECT count(*) FROM results").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> ResultStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _key(model: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical([dict(model), dict(request)]).encode()).hexdigest()
