"""Checks of things named: a number of them of one kind, or at least one."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from ift_serve.checks.categories import CATEGORIES, PLURALS, Category, article, words_of
from ift_serve.checks.check import Check, Count
from ift_serve.checks.verdict import PASSED, Verdict, failed, passed
from ift_serve.checks.words import WordFinder

_WORD = re.compile(r"[A-Za-z]+")


class ListItems(Check):
    """The response names exactly so many different things of a kind, and nothing else.

    ``joiners`` are words that may stand between them; marks and forms between them are free.
    """

    type: Literal["list_items"] = "list_items"
    category: Category
    count: Count
    joiners: Annotated[tuple[str, ...], Field(strict=False)] = ("and",)

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at the first word of another kind, or the first that comes twice."""
        allowed, joiners = words_of(self.category), {word.lower() for word in self.joiners}
        found = [match for match in _WORD.finditer(response) if match.group().lower() not in joiners]
        for match in found:
            if match.group().lower() not in allowed:
                return failed(f"{match.group()!r} is not {article(self.category)}", match.span())
        if len(found) != self.count:
            return failed(f"{len(found)} items instead of {self.count}")
        seen: set[str] = set()
        for match in found:
            if match.group().lower() in seen:
                return failed("an item is repeated", match.span())
            seen.add(match.group().lower())
        return PASSED


class NamesOne(Check):
    """The response names a thing of a kind somewhere; the first place of the phrase ``apart_from`` names nothing."""

    type: Literal["names_one"] = "names_one"
    category: Category
    apart_from: str = ""

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at the word that is named."""
        begin = response.find(self.apart_from) if self.apart_from else -1
        # Blanks in its place keep the offsets; one of them is enough to part the words beside it.
        cut = len(self.apart_from)
        rest = response if begin < 0 else response[:begin] + " " * cut + response[begin + cut :]
        finder = WordFinder(rest)
        for word in CATEGORIES[self.category]:
            if span := finder.find(word):
                return passed(span)
        return failed(f"names none of the {PLURALS[self.category]}")
