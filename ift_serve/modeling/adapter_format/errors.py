"""Errors of adapter directories: the file, the tensor or field, and what to change."""

from __future__ import annotations

_LONGEST_QUOTE = 120


class AdapterError(Exception):
    """An adapter cannot be used. The message names the file and the tensor or field, and says what to do."""


def quoted(value: object) -> str:
    """An untrusted value from a file, fit for a message: one line, ASCII, short."""
    shown = value if isinstance(value, str) and value.isascii() and value.isprintable() else ascii(value)
    return shown if len(shown) <= _LONGEST_QUOTE else f"{shown[: _LONGEST_QUOTE - 3]}..."
