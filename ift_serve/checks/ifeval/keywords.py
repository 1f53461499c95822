"""Instructions about words and letters that the response has or does not have."""

from __future__ import annotations

import random
import string
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from ift_serve.checks.ifeval.matching import check_keyword, spans
from ift_serve.checks.instruction import Instruction, Number, Relation, Word, compared
from ift_serve.checks.verdict import PASSED, Verdict, failed, passed

Keyword = Annotated[Word, AfterValidator(check_keyword)]
Keywords = Annotated[tuple[Keyword, ...], Field(strict=False, min_length=1, max_length=200)]


class Existence(Instruction):
    """Every keyword is somewhere, in any case, parts of longer words included."""

    id: ClassVar[str] = "keywords:existence"
    keywords: Keywords

    def verdict(self, response: str) -> Verdict:
        """Points at the first keyword."""
        first = None
        for keyword in sorted(self.keywords):
            found = next(spans(keyword, response), None)
            if found is None:
                return failed(f"does not contain {keyword!r}")
            first = first or found
        return Verdict(True, "", first)


class Frequency(Instruction):
    """A keyword comes less or at least so many times, in any case, parts of longer words included."""

    id: ClassVar[str] = "keywords:frequency"
    keyword: Keyword
    frequency: Number
    relation: Relation

    def verdict(self, response: str) -> Verdict:
        """Points at the first place that is one too many."""
        keyword = self.keyword.strip()
        found = list(spans(keyword, response))
        return compared(len(found), self.relation, self.frequency, f"times {keyword!r}", found)


class ForbiddenWords(Instruction):
    """None of the words is there by itself, in any case."""

    id: ClassVar[str] = "keywords:forbidden_words"
    forbidden_words: Keywords

    def verdict(self, response: str) -> Verdict:
        """Points at the first forbidden word."""
        found = [
            (span, word) for word in self.forbidden_words if (span := next(spans(word, response, whole=True), None))
        ]
        if not found:
            return PASSED
        span, word = min(found)
        return failed(f"contains {word!r}", span)


class LetterFrequency(Instruction):
    """A letter comes less or at least so many times, in any case.

    The published code draws a letter at random in place of one that is not from a to z, of which the benchmark has
    two: ``#`` and ``!``. Here that draw is made once, from a generator with the seed 0.
    """

    id: ClassVar[str] = "keywords:letter_frequency"
    letter: Annotated[str, Field(min_length=1, max_length=8)]
    let_frequency: Number
    let_relation: Relation

    def verdict(self, response: str) -> Verdict:
        """The letter that was asked for, whatever it is. Points at the first place that is one too many."""
        return self._counted(response, self.letter.strip().lower())

    def published(self, response: str) -> Verdict:
        """Another letter where the one asked for is none."""
        letter = self.letter.lower()
        if len(letter) != 1 or letter not in string.ascii_lowercase:
            letter = random.Random(0).choice(string.ascii_lowercase)
        return self._counted(response, letter)

    def _counted(self, response: str, letter: str) -> Verdict:
        lowered = response.lower()
        count = lowered.count(letter)
        verdict = compared(count, self.let_relation, self.let_frequency, f"times {letter!r}")
        if verdict or self.let_relation == "at least" or len(lowered) != len(response):
            return verdict
        place = -1
        for _ in range(self.let_frequency):
            place = lowered.find(letter, place + 1)
        return failed(verdict.reason, (place, place + len(letter)) if place >= 0 else None)


class NoComma(Instruction):
    """There is no comma."""

    id: ClassVar[str] = "punctuation:no_comma"

    def verdict(self, response: str) -> Verdict:
        """Points at the first comma."""
        place = response.find(",")
        return PASSED if place < 0 else failed("contains a comma", (place, place + 1))


class EndChecker(Instruction):
    """The response ends with a phrase, in any case; quotation marks around the whole do not count."""

    id: ClassVar[str] = "startend:end_checker"
    end_phrase: Word

    def verdict(self, response: str) -> Verdict:
        """Points at the end."""
        wanted = self.end_phrase.strip()
        text = response.rstrip().rstrip('"')
        if response.strip().strip('"').lower().endswith(wanted.lower()):
            return passed((max(0, len(text) - len(wanted)), len(text)))
        return failed(f"does not end with {wanted!r}", (max(0, len(text) - len(wanted)), len(text)))


class Quotation(Instruction):
    """The whole response stands between two straight double quotation marks."""

    id: ClassVar[str] = "startend:quotation"

    def verdict(self, response: str) -> Verdict:
        """Points at the character that should be a mark."""
        start, end = len(response) - len(response.lstrip()), len(response.rstrip())
        if end - start < 2 or response[start] != '"':
            return failed("does not begin with a quotation mark", (start, min(start + 1, end)))
        if response[end - 1] != '"':
            return failed("does not end with a quotation mark", (end - 1, end))
        return passed((start, end))
