"""Records of a file: JSON Lines, or CSV with a header, with errors that name the line."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ift_serve.evaluation.errors import EvaluationError


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers from 1 and objects, whose values are texts in a ``.csv``. Raises EvaluationError."""
    is_csv = path.suffix.lower() == ".csv"
    try:
        # Line breaks within the fields of a CSV stay as they are.
        with path.open(encoding="utf-8-sig" if is_csv else "utf-8", newline="" if is_csv else None) as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path}: cannot be read: {error}") from None
    yield from _csv_rows(path, text) if is_csv else _json_lines(path, text)


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise EvaluationError(f"{path}:{number}: is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise EvaluationError(f"{path}:{number}: is no JSON object")
        yield number, found


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """A row is named by the line that it ends on: fields may hold line breaks."""
    csv.field_size_limit(min(sys.maxsize, max(csv.field_size_limit(), len(text))))
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in rows:
            if header is None:
                header = row
                if len(set(header)) < len(header) or "" in header[1:]:
                    raise EvaluationError(f"{path}:{rows.line_num}: the header names a column twice, or not at all")
            elif row:
                if len(row) != len(header):
                    raise EvaluationError(
                        f"{path}:{rows.line_num}: has {len(row)} fields; the header has {len(header)}"
                    )
                yield rows.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise EvaluationError(f"{path}:{rows.line_num}: is not CSV: {error}") from None
