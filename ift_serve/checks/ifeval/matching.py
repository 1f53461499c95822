"""Keywords in a response, in any case: as plain text, or by RE2 where they hold marks of an expression."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ift_serve.checks.patterns import compiled, searchable
from ift_serve.checks.verdict import Span
from ift_serve.checks.words import fold

_PLAIN = re.compile(r"[^\\.^$*+?{}\[\]|()]*\Z")
_WORD_CHARACTER = re.compile(r"\w")


def check_keyword(keyword: str) -> str:
    """The keyword, if it can be searched for. Raises ValueError.

    The published checkers hand keywords to a regular expression as they are, so ``C.`` also finds ``CO``. RE2 reads
    them the same way without ever backtracking.
    """
    if not _PLAIN.match(keyword):
        _expression(keyword, whole=False)
    return keyword


def spans(keyword: str, text: str, *, whole: bool = False) -> Iterator[Span]:
    """Places of a keyword from left to right, none overlapping the one before; ``whole``: between edges of words."""
    if _PLAIN.match(keyword):
        yield from _plain_spans(keyword, text, whole=whole)
    else:
        yield from (found.span() for found in _expression(keyword, whole=whole).finditer(searchable(text)))


def _plain_spans(keyword: str, text: str, *, whole: bool) -> Iterator[Span]:
    wanted, folded = fold(keyword), fold(text)
    place = 0
    while (place := folded.find(wanted, place)) >= 0:
        end = place + len(wanted)
        if not whole or (_is_edge(text, place) and _is_edge(text, end)):
            yield place, end
            place = end
        else:
            place += 1


def _is_edge(text: str, place: int) -> bool:
    """Whether a character of a word stands on one side of a place and none on the other."""
    before = place > 0 and _WORD_CHARACTER.match(text, place - 1) is not None
    after = _WORD_CHARACTER.match(text, place) is not None
    return before != after


def _expression(keyword: str, *, whole: bool) -> Any:
    return compiled(rf"\b(?:{keyword})\b" if whole else keyword, ignore_case=True)
