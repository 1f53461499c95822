"""Instructions about how many words, sentences and paragraphs there are."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import Field

from ift_serve.checks.instruction import Instruction, Number, Relation, Word, compared, exactly
from ift_serve.checks.language.sentence_rules import trained_rules
from ift_serve.checks.language.sentences import sentence_spans
from ift_serve.checks.verdict import Span, Verdict, failed, passed

_WORD = re.compile(r"\w+")
_STARS = "***"
_FIRST_WORD_ENDS = re.compile(r"[.,?!'\"]")


class NumberWords(Instruction):
    """Less or at least so many words; a word is a run of letters, digits and underscores."""

    id: ClassVar[str] = "length_constraints:number_words"
    num_words: Number
    relation: Relation

    def verdict(self, response: str) -> Verdict:
        """Points at the first word that is too many."""
        found = [match.span() for match in _WORD.finditer(response)]
        return compared(len(found), self.relation, self.num_words, "words", found)


class NumberSentences(Instruction):
    """Less or at least so many sentences, cut by what Punkt has learnt of English."""

    id: ClassVar[str] = "length_constraints:number_sentences"
    num_sentences: Number
    relation: Relation

    def verdict(self, response: str) -> Verdict:
        """Points at the first sentence too many. Raises MissingExtraError without the package of what was learnt."""
        found = sentence_spans(response, trained_rules())
        return compared(len(found), self.relation, self.num_sentences, "sentences", found)


class NumberParagraphs(Instruction):
    """Exactly so many paragraphs, divided by three stars; none between two dividers may be blank."""

    id: ClassVar[str] = "length_constraints:number_paragraphs"
    num_paragraphs: Number

    def verdict(self, response: str) -> Verdict:
        """Points at a blank paragraph, or at the first that is too many."""
        parts = divided(response, _STARS)
        found = []
        for index, (start, end) in enumerate(parts):
            if response[start:end].strip():
                found.append((start, end))
            elif 0 < index < len(parts) - 1:
                return failed("a paragraph is blank", (start, end))
        return exactly(len(found), self.num_paragraphs, "paragraphs", found)


class NthParagraphFirstWord(Instruction):
    """Exactly so many paragraphs, divided by blank lines, and one of them begins with a word.

    The published code counts the paragraphs that are not blank, but takes the one to look at from all of them, so an
    answer that begins with a blank paragraph is judged by the wrong one.
    """

    id: ClassVar[str] = "length_constraints:nth_paragraph_first_word"
    num_paragraphs: Number
    nth_paragraph: Annotated[int, Field(ge=1, le=1_000_000)]
    first_word: Word

    def verdict(self, response: str) -> Verdict:
        """Points at the first word of the paragraph."""
        found = self._paragraphs(response)
        return self._judged(response, found, found)

    def published(self, response: str) -> Verdict:
        """Blank paragraphs are not counted, but they are in the way of the one that is looked at."""
        return self._judged(response, self._paragraphs(response), divided(response, "\n\n"))

    @staticmethod
    def _paragraphs(response: str) -> list[Span]:
        return [span for span in divided(response, "\n\n") if response[slice(*span)].strip()]

    def _judged(self, response: str, counted: list[Span], indexed: list[Span]) -> Verdict:
        if len(counted) != self.num_paragraphs:
            return exactly(len(counted), self.num_paragraphs, "paragraphs", counted)
        if self.nth_paragraph > len(counted):
            return failed(f"has no paragraph {self.nth_paragraph}")
        begin, end = indexed[self.nth_paragraph - 1]
        words = re.compile(r"\S+").search(response, begin, end)
        if words is None:
            return failed(f"paragraph {self.nth_paragraph} is blank", (begin, end))
        first = words.group().lstrip("'").lstrip('"')
        first = _FIRST_WORD_ENDS.split(first, maxsplit=1)[0].lower()
        if first != self.first_word.lower():
            return failed(f"paragraph {self.nth_paragraph} begins with {first!r:.80}", words.span())
        return passed(words.span())


def divided(text: str, divider: str) -> list[Span]:
    """The parts of a text between dividers, taken from left to right."""
    parts, start = [], 0
    for part in text.split(divider):
        parts.append((start, start + len(part)))
        start += len(part) + len(divider)
    return parts
