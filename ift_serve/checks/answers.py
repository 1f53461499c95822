"""Checks of what an answer says: one right text, a number, steps, a yes or no with its reason."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from ift_serve.checks.check import Check, Count, inner_span
from ift_serve.checks.equations import equations
from ift_serve.checks.extraction import last_number
from ift_serve.checks.verdict import PASSED, Verdict, failed, passed
from ift_serve.checks.words import WordFinder, find_word

_BECAUSE = re.compile("because", re.IGNORECASE)
_OPPOSITE = {"larger": "smaller", "smaller": "larger"}


class Exact(Check):
    """The response is the answer letter for letter, apart from surrounding space and one final period."""

    type: Literal["exact"] = "exact"
    answer: str

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at what follows the last character that is right."""
        expected, given = _bare(self.answer), _bare(response)
        start = inner_span(response)[0]
        if given == expected:
            return passed((start, start + len(given)))
        differs = (i for i, (a, b) in enumerate(zip(given, expected, strict=False)) if a != b)
        first = next(differs, min(len(given), len(expected)))
        return failed(f"expected {expected!r}", (start + first, start + len(given)))


def _bare(text: str) -> str:
    text = text.strip()
    return text[:-1].rstrip() if text.endswith(".") else text


class LastNumber(Check):
    """The last number of the response has this value, however it is written."""

    type: Literal["last_number"] = "last_number"
    value: int

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at the last number."""
        found = last_number(response)
        if found is None:
            return failed("no number in the answer")
        if float(found.text) == self.value:
            return passed(found.span)
        return failed(f"the last number is not {self.value}", found.span)


class Steps(Check):
    """The response writes out at least so many equations of any number of terms, each of them true."""

    type: Literal["steps"] = "steps"
    least: Count = 2

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at the first equation that is false."""
        count = 0
        for found in equations(response):
            if not found.is_true:
                return failed(f"{found.text} is not true", found.span)
            count += 1
        return PASSED if count >= self.least else failed(f"{count} written steps instead of at least {self.least}")


class YesNo(Check):
    """The response begins with yes or no as is right, and gives a true reason after the word because.

    reason: words that it names, or a comparison of two numbers such as ``("3", "smaller", "8")``, which may be said
    from either end.
    """

    type: Literal["yes_no"] = "yes_no"
    yes: bool
    reason: Annotated[tuple[str, ...], Field(strict=False)]

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at a wrong first word, or at the reason."""
        start, end = inner_span(response)
        expected = "yes" if self.yes else "no"
        first = re.compile(r"[A-Za-z]*").match(response, start)
        assert first is not None
        if first.group().lower() != expected:
            return failed(f"does not begin with {expected}", first.span())
        if "because" not in response.lower():
            return failed("gives no reason")
        begin = [found.end() for found in _BECAUSE.finditer(response)][-1]
        said = response[begin:end]
        if len(self.reason) == 3 and self.reason[1] in _OPPOSITE:
            if not _compares(said, *self.reason):
                return failed(f"the reason is not that {' is '.join(self.reason)}", (begin, end))
            return passed((begin, end))
        missing = [word for word in self.reason if find_word(said, word) is None]
        return failed(f"the reason does not say {missing[0]}", (begin, end)) if missing else passed((begin, end))


def _compares(said: str, first: str, relation: str, second: str) -> bool:
    """Whether a reason says that the first number is in the relation to the second, from either end."""
    finder = WordFinder(said)
    for a, stated, b in ((first, relation, second), (second, _OPPOSITE[relation], first)):
        claim = finder.find(f"{a} is {stated}")
        if claim is not None and finder.find(b, claim[1]) is not None:
            return True
    return False
