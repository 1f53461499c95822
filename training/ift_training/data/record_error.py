"""Error of a record: what to do about it, and a kind to count it by."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

_NUMBER = re.compile(r"\[\d+\]")


class Problem(StrEnum):
    """Why a record is not trained on."""

    UNREADABLE = "unreadable"
    NOT_A_RECORD = "not a record"
    UNKNOWN_FIELD = "unknown field"
    FIELD_TWICE = "field given twice"
    MISSING = "missing"
    WRONG_TYPE = "wrong type"
    EMPTY = "empty"
    NOT_UNICODE = "not Unicode"
    UNKNOWN_ROLE = "unknown role"
    WRONG_ORDER = "wrong order of roles"
    WRONG_CHECK = "wrong check"
    FAILS_CHECK = "fails its own check"
    TOO_LONG = "too long"
    EMPTY_ANSWER = "empty answer"
    LOST_INSTRUCTION = "lost instruction"
    REFUSED_BY_TEMPLATE = "refused by the template"


class Kind(NamedTuple):
    """What records with the same mistake have in common: the problem, and the field without its numbers."""

    problem: Problem
    field: str


class RecordError(ValueError):
    """A record that cannot be used; ``field`` names what is wrong, ``message`` says what to do."""

    def __init__(self, field: str, message: str, problem: Problem) -> None:
        self.field, self.message, self.problem = _printable(field), _printable(message), problem
        super().__init__(f"{self.field}: {self.message}")

    @property
    def kind(self) -> Kind:
        """What to count it by, wherever in the record it is."""
        return Kind(self.problem, _NUMBER.sub("[]", self.field))


class EncodingError(RecordError):
    """A record that is well formed and does not become an example; ``length``: its tokens, where it is too long."""

    def __init__(self, problem: Problem, message: str, length: int | None = None) -> None:
        super().__init__("record", message, problem)
        self.length = length


def _printable(text: str) -> str:
    """Without what cannot be printed, such as half a character."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
