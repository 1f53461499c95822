"""Records of a JSON Lines file, with errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ift_serve.evaluation.errors import EvaluationError


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers from 1 and objects. Raises EvaluationError."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise EvaluationError(f"{path}:{number}: is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise EvaluationError(f"{path}:{number}: is no JSON object")
        yield number, found
