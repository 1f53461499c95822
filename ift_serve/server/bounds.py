"""Numbers, texts and choices within their bounds; whatever is outside is named by its path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import EnumDescriptor

from ift_serve.server.errors import invalid


def number(path: str, value: float, low: float, high: float, *, above: bool = False, hint: str = "") -> float:
    """A finite number within ``[low, high]`` (``(low, high]`` with ``above``). Raises StatusError."""
    if not math.isfinite(value):
        raise invalid(path, f"is {value}; give a finite number")
    if value > high or value < low or (above and value == low):
        bounds = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
        raise invalid(path, f"is {value:g}, but must be {bounds}{hint}")
    return value


def inside(path: str, value: float, low: float, high: float) -> float:
    """A number above ``low`` and below ``high``. Raises StatusError."""
    if not low < value < high:
        raise invalid(path, f"is {value:g}, but must be above {low:g} and below {high:g}")
    return value


def short(path: str, text: str, most: int, *, bytes_: bool = False) -> str:
    """A text of at most so many characters, or bytes of UTF-8. Raises StatusError."""
    size = len(text.encode()) if bytes_ else len(text)
    if size > most:
        raise invalid(path, f"has {size} {'bytes' if bytes_ else 'characters'}; at most {most}")
    return text


def enum_names(enum: EnumDescriptor, unspecified: str) -> dict[int, str]:
    """A name for each value of an enum: its own in lower case, without the prefix that all have.

    ``unspecified``: what the value 0 stands for.
    """
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    names = {value.number: value.name.removeprefix(prefix).lower() for value in enum.values if value.number}
    return {0: unspecified} | names


def enum_value(names: Mapping[int, str], name: str) -> int:
    """The value of a name, not the unspecified one."""
    return next(value for value, known in names.items() if value and known == name)


def choice(path: str, value: int, names: Mapping[int, str]) -> Any:
    """The name of an enum's value. Raises StatusError for a value that this server does not know."""
    if value not in names:
        raise invalid(path, f"{value} is unknown; there are {', '.join(dict.fromkeys(names.values()))}")
    return names[value]
