"""Instructions about which word stands where, in the response or in its sentences."""

from __future__ import annotations

import string
import unicodedata
from itertools import pairwise
from typing import ClassVar

from ift_serve.checks.ifbench.arguments import Number, Position, Word
from ift_serve.checks.ifbench.text import PUNCTUATION, sentences, without_punctuation
from ift_serve.checks.ifbench.verbs import is_verb
from ift_serve.checks.instruction import Instruction
from ift_serve.checks.language.tokens import token_spans
from ift_serve.checks.verdict import PASSED, Span, Verdict, failed, passed

_EDGES = PUNCTUATION + " "


class StartVerb(Instruction):
    """The response begins with a verb.

    The published code asks a statistical tagger whose model is downloaded. Here a list of common verbs and the forms
    that they have decide, in both columns.
    """

    id: ClassVar[str] = "words:start_verb"

    def verdict(self, response: str) -> Verdict:
        """Points at the first word or mark."""
        tokens = token_spans(response)
        if not tokens:
            return failed("has no words")
        word = response[slice(*tokens[0])]
        return passed(tokens[0]) if is_verb(word) else failed(f"{word!r:.80} is no verb", tokens[0])


class LastFirst(Instruction):
    """Every sentence begins with the last word of the one before, in any case."""

    id: ClassVar[str] = "words:last_first"

    def verdict(self, response: str) -> Verdict:
        """Points at the first sentence that does not."""
        found = sentences(response)
        for (before, _), (after, span) in pairwise(found):
            last, first = before.rstrip(_EDGES).split()[-1:], after.lstrip(_EDGES).split()[:1]
            if not last or not first or last[0].lower() != first[0].lower():
                return failed("a sentence does not begin with the last word of the one before", span)
        return PASSED


class KeywordsSpecificPosition(Instruction):
    """A keyword is the so-manieth word of the so-manieth sentence; as published, marks count as words."""

    id: ClassVar[str] = "words:keywords_specific_position"
    keyword: Word
    n: Position
    m: Position

    def verdict(self, response: str) -> Verdict:
        """Points at the sentence."""
        found = sentences(response)
        if len(found) < self.n:
            return failed(f"has no sentence {self.n}")
        sentence, span = found[self.n - 1]
        tokens = [sentence[start:end] for start, end in token_spans(sentence)]
        if len(tokens) < self.m:
            return failed(f"sentence {self.n} has no word {self.m}", span)
        if tokens[self.m - 1] != self.keyword.strip():
            return failed(f"word {self.m} of sentence {self.n} is {tokens[self.m - 1]!r:.80}", span)
        return passed(span)


class WordsPosition(Instruction):
    """A keyword is the second word and the second to last one.

    The published code counts marks as words, so that the period at the end is the last word. The repaired one counts
    words, in any case.
    """

    id: ClassVar[str] = "words:words_position"
    keyword: Word

    def verdict(self, response: str) -> Verdict:
        """Points at the word that is another one."""
        words = [span for span in token_spans(response) if not _is_mark(response[slice(*span)])]
        return self._judged(
            response.lower(), words, self.keyword.strip().lower(), lowered=len(response.lower()) == len(response)
        )

    def published(self, response: str) -> Verdict:
        """Marks are words, and capitals matter."""
        return self._judged(response, token_spans(response), self.keyword.strip(), lowered=True)

    @staticmethod
    def _judged(text: str, words: list[Span], keyword: str, *, lowered: bool) -> Verdict:
        if len(words) < 2:
            return failed("has no two words")
        for name, span in (("second", words[1]), ("second to last", words[-2])):
            if text[slice(*span)] != keyword:
                return failed(f"the {name} word is {text[slice(*span)]!r:.80}", span if lowered else None)
        return PASSED


class AlliterationIncrement(Instruction):
    """Each sentence has more alliterative words than the one before; at least none in the first."""

    id: ClassVar[str] = "sentence:alliteration_increment"

    def verdict(self, response: str) -> Verdict:
        """Points at the first sentence that has no more."""
        before = -1
        for sentence, span in sentences(response):
            count = _alliterative(sentence)
            if count <= before:
                return failed(f"a sentence has {count} alliterative words, the one before {before}", span)
            before = count
        return PASSED


class Increment(Instruction):
    """Each sentence has exactly so many words more than the one before."""

    id: ClassVar[str] = "sentence:increment"
    small_n: Number

    def verdict(self, response: str) -> Verdict:
        """Points at the first sentence of another length."""
        found = [(len(without_punctuation(sentence).split()), span) for sentence, span in sentences(response)]
        for (before, _), (count, span) in pairwise(found):
            if count != before + self.small_n:
                return failed(f"a sentence has {count} words instead of {before + self.small_n}", span)
        return PASSED


class SentenceKeyword(Instruction):
    """A keyword is in the so-manieth sentence, in any case, parts of longer words included."""

    id: ClassVar[str] = "sentence:keyword"
    word: Word
    N: Position

    def verdict(self, response: str) -> Verdict:
        """Points at the sentence."""
        found = sentences(response)
        if len(found) < self.N:
            return failed(f"has no sentence {self.N}")
        sentence, span = found[self.N - 1]
        if self.word.lower() in sentence.lower():
            return passed(span)
        return failed(f"sentence {self.N} does not contain {self.word!r}", span)


def _alliterative(sentence: str) -> int:
    """How many words stand beside one that begins with the same character."""
    words = [word for part in sentence.lower().split() if (word := part.lstrip(_EDGES))]
    same = [first[0] == second[0] for first, second in pairwise(words)]
    return sum((1 if place and same[place - 1] else 2) for place, is_same in enumerate(same) if is_same)


def _is_mark(token: str) -> bool:
    return all(c in string.punctuation or unicodedata.category(c).startswith("P") for c in token)
