"""Checks of beginnings, endings, words to use or avoid, capitals and length."""

from __future__ import annotations

from typing import Literal

from ift_serve.checks.check import Check, Count, Phrase, inner_span
from ift_serve.checks.verdict import PASSED, Verdict, failed, passed
from ift_serve.checks.words import find_word

_STOPS = ".!"


class Begin(Check):
    """The response begins with a phrase; space may come before it."""

    type: Literal["begin"] = "begin"
    phrase: Phrase

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Letter for letter."""
        start, end = inner_span(response)
        wanted = self.phrase.strip()
        if response.startswith(wanted, start):
            return passed((start, start + len(wanted)))
        return failed(f"does not begin with {self.phrase!r}", (start, min(end, start + len(self.phrase))))


class End(Check):
    """The response ends with a phrase; full stops and exclamation marks may follow."""

    type: Literal["end"] = "end"
    phrase: Phrase

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Letter for letter; the phrase's own final marks are wanted as they are."""
        text, wanted = response.strip(), self.phrase.strip()
        body, rest = wanted.rstrip(_STOPS), text.rstrip(_STOPS)
        own_marks, found_marks = wanted[len(body) :], text[len(rest) :]
        start, end = inner_span(response)
        if rest.endswith(body) and (found_marks.startswith(own_marks) if body else own_marks in found_marks):
            return passed((start + len(rest) - len(body), end))
        return failed(f"does not end with {self.phrase!r}", (max(start, end - len(self.phrase)), end))


class Include(Check):
    """The response has a word, in any case; part of a longer word does not count."""

    type: Literal["include"] = "include"
    word: Phrase

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at the first place of the word."""
        span = find_word(response, self.word)
        return passed(span) if span else failed(f"does not contain {self.word!r}")


class Avoid(Check):
    """The response does not have a word, in any case; part of a longer word does not count."""

    type: Literal["avoid"] = "avoid"
    word: Phrase

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at the first place of the word."""
        span = find_word(response, self.word)
        return failed(f"contains {self.word!r}", span) if span else PASSED


class Upper(Check):
    """The response has no small letter."""

    type: Literal["upper"] = "upper"

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at the first small letter."""
        place = next((place for place, letter in enumerate(response) if letter.islower()), None)
        return PASSED if place is None else failed("has small letters", (place, place + 1))


class MaxWords(Check):
    """The response has at most so many words; a word is what stands between spaces."""

    type: Literal["max_words"] = "max_words"
    limit: Count

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at the words that are too many."""
        words = response.split()
        if len(words) <= self.limit:
            return PASSED
        rest = response.split(maxsplit=self.limit)[self.limit]
        end = inner_span(response)[1]
        return failed(f"{len(words)} words instead of at most {self.limit}", (end - len(rest.rstrip()), end))


class MinWords(Check):
    """The response has at least so many words; a word is what stands between spaces."""

    type: Literal["min_words"] = "min_words"
    least: Count

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at nothing: what is missing has no place."""
        count = len(response.split())
        return PASSED if count >= self.least else failed(f"{count} words instead of at least {self.least}")


class MinSentences(Check):
    """The response has at least so many sentences, counted by the marks that end them: ``.``, ``!`` and ``?``."""

    type: Literal["min_sentences"] = "min_sentences"
    least: Count

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at nothing: what is missing has no place."""
        count = sum(response.count(mark) for mark in ".!?")
        return PASSED if count >= self.least else failed(f"{count} sentences instead of at least {self.least}")
