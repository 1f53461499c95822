"""What a model will be examined on, read from files of any layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ift_training.data.quality.errors import QualityError


def read_examination(files: Sequence[Path], fields: Sequence[str]) -> list[str]:
    """What is asked in each line of JSON Lines files, each text once, in their order.

    Of a line, the first of ``fields`` that it has: a text, or a list of messages, whose user speaks. Raises
    QualityError with the file and line where there is none.
    """
    found: dict[str, None] = {}
    for path in files:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise QualityError(f"examination.files: {path}: cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                found.setdefault(_asked(line, fields, f"examination.files: {path}: line {number}"))
    return list(found)


def _asked(line: str, fields: Sequence[str], where: str) -> str:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise QualityError(f"{where}: is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise QualityError(f"{where}: is no object")
    name = next((field for field in fields if values.get(field)), None)
    if name is None:
        raise QualityError(f"{where}: has none of {', '.join(fields)}; name its field in examination.fields")
    text = _text(values[name])
    if not text:
        raise QualityError(f"{where}: {name}: holds no text of a user")
    context = values.get("context") or values.get("input")
    return f"{text}\n\n{context}" if isinstance(context, str) and name == "instruction" else text


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    said = [_said(message) for message in value if isinstance(message, Mapping)]
    return "\n\n".join(text for text in said if text)


def _said(message: Mapping[str, Any]) -> str:
    """What a user says, in the layouts of OpenAI and ShareGPT."""
    if message.get("role", message.get("from")) not in ("user", "human"):
        return ""
    content = message.get("content", message.get("value"))
    return content if isinstance(content, str) else ""
