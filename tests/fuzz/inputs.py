"""Inputs of several files in one run of bytes, as the fuzzer changes them."""

from __future__ import annotations

from collections.abc import Sequence

SEPARATOR = b"\n====\n"


def parts(data: bytes, count: int) -> list[bytes]:
    """So many parts; those that are not there are empty."""
    found = data.split(SEPARATOR, count - 1)
    return found + [b""] * (count - len(found))


def joined(contents: Sequence[bytes]) -> bytes:
    """The other way round."""
    return SEPARATOR.join(contents)
