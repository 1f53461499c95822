"""The milder readings of an answer that the benchmark's loose score also tries."""

from __future__ import annotations


def relaxed(response: str) -> list[str]:
    """The answer without its first line, without its last, without both, and each of these without stars.

    The first is the answer itself, so whatever passes strictly passes loosely.
    """
    lines = response.split("\n")
    whole = [response, "\n".join(lines[1:]).strip(), "\n".join(lines[:-1]).strip(), "\n".join(lines[1:-1]).strip()]
    return list(dict.fromkeys([*whole, *(text.replace("*", "") for text in whole)]))
