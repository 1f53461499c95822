"""Sums that are written out in an answer, found in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ift_serve.checks.verdict import Span

_CHAIN = re.compile(r"\d{1,18}+(?:\s*+[+-]\s*+\d{1,18}+)*+")
_RESULT = re.compile(r"\s*=\s*(-?\d{1,18})(?!\d)")
_TERM = re.compile(r"([+-]?)\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Equation:
    """A sum or difference of whole numbers below ten to the eighteenth, with the result that is claimed."""

    text: str
    span: Span
    is_true: bool


def equations(text: str) -> Iterator[Equation]:
    """The equations of a text, such as ``12 + 6 - 5 = 13``, from left to right.

    A chain of terms is taken as long as it goes and never looked at again, so that ``1+1+1+...`` costs one pass. What
    stands right after a letter, a digit or a point is no first term.
    """
    place = 0
    while chain := _CHAIN.search(text, place):
        place = chain.end()
        terms = list(_TERM.finditer(text, chain.start(), chain.end()))
        before = text[chain.start() - 1 : chain.start()]
        if before == "." or re.match(r"\w", before):
            del terms[0]
        result = _RESULT.match(text, place)
        if len(terms) < 2 or result is None:
            continue
        place = result.end()
        first = terms[0].start(2)
        total = int(terms[0][2]) + sum(int(sign + digits) for sign, digits in (t.groups() for t in terms[1:]))
        yield Equation(text[first:place], (first, place), total == int(result[1]))
