"""What a writer gave as a new task, read by the lines that the prompts ask for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ift_serve.evaluation.serving.outcomes import Answer

_ADDED = re.compile(r"^\W*added\W*:\s*(.+)$", re.IGNORECASE | re.MULTILINE)
_TASK = re.compile(r"^\W*new task\W*:[ \t]*", re.IGNORECASE | re.MULTILINE)
_INPUT = re.compile(r"^\W*new input\W*:[ \t]*", re.IGNORECASE | re.MULTILINE)
_MARKS = ' \t\n*`"'


@dataclass(frozen=True, slots=True)
class Written:
    """A new text, and what the writer says that it added."""

    text: str
    added: str


def new_task(answer: Answer) -> Written | None:
    """The task behind its name; None where an answer has none."""
    return _read(answer, _TASK)


def new_input(answer: Answer) -> Written | None:
    """The input behind its name; None where an answer has none."""
    return _read(answer, _INPUT)


def only_task(answer: Answer) -> Written | None:
    """The task of a writer that was asked for nothing else, with or without its name before it."""
    found = _read(answer, _TASK)
    if found is not None:
        return found
    lines = [line.strip(_MARKS) for line in answer.text.strip().splitlines() if line.strip(_MARKS)]
    return Written(lines[0], "") if lines else None


def _read(answer: Answer, name: re.Pattern[str]) -> Written | None:
    found = name.search(answer.text)
    if found is None:
        return None
    text = answer.text[found.end() :]
    if (other := _ADDED.search(text)) is not None:
        text = text[: other.start()]
    added = _ADDED.search(answer.text)
    text = text.strip(_MARKS)
    return Written(text, added[1].strip(_MARKS) if added else "") if text else None
