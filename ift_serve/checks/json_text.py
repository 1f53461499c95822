"""JSON in an answer, read as RFC 8259 has it."""

from __future__ import annotations

import json
import math
from typing import Any

_LONGEST_INTEGER = 4000


def parse_json(text: str) -> Any:
    """The value of a text that is JSON, NaN and infinities excluded. Raises ValueError."""
    try:
        return json.loads(text.strip(), parse_constant=_no_constant, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no value of it")


def _integer(digits: str) -> int | float:
    """Python converts no text of many thousand digits to an integer."""
    if len(digits) < _LONGEST_INTEGER:
        return int(digits)
    return -math.inf if digits.startswith("-") else math.inf
