"""Numbers, texts and choices within their bounds; whatever is outside is named by its path."""

from __future__ import annotations

import math
from collections.abc import Mapping

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


def choice(path: str, value: int, names: Mapping[int, str]) -> str:
    """The name of an enum's value. Raises StatusError for a value that this server does not know."""
    if value not in names:
        raise invalid(path, f"{value} is unknown; there are {', '.join(dict.fromkeys(names.values()))}")
    return names[value]
