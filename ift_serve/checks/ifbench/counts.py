"""Instructions about how many words, numbers, names and marks of a kind there are."""

from __future__ import annotations

import re
from typing import ClassVar

from ift_serve.checks.ifbench.arguments import Number, Position, Word
from ift_serve.checks.ifbench.text import bare, without_punctuation
from ift_serve.checks.instruction import Instruction, compared, exactly
from ift_serve.checks.verdict import PASSED, Verdict, failed
from ift_serve.checks.words import listed

_WORD = re.compile(r"\w+")
_CHUNK = re.compile(r"\S+")
_DIGITS = re.compile(r"\d+")
_JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
_CONJUNCTIONS = frozenset(listed("and but for nor or so yet"))
_PRONOUNS = frozenset(
    listed(
        """i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her
        hers herself it its itself they them their theirs themselves"""
    )
)
_NAMES = listed(
    """Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin
    Harper Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan Victoria
    Elijah Layla Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella
    Jonathan"""
)
"""The names that the benchmark's prompts list."""
_MARKS = ".,!?;:"
_INTERROBANGS = ("!?", "?!", "‽")


class WordCountRange(Instruction):
    """Between so many and so many words; a word is a run of letters, digits and underscores."""

    id: ClassVar[str] = "count:word_count_range"
    min_words: Number
    max_words: Number

    def verdict(self, response: str) -> Verdict:
        """Points at the first word that is too many."""
        found = [match.span() for match in _WORD.finditer(response)]
        if self.min_words <= len(found) <= self.max_words:
            return PASSED
        span = found[self.max_words] if len(found) > self.max_words else None
        return failed(f"{len(found)} words instead of {self.min_words} to {self.max_words}", span)


class UniqueWordCount(Instruction):
    """At least so many different words."""

    id: ClassVar[str] = "count:unique_word_count"
    N: Number

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: what is missing has no place."""
        return compared(len({bare(word) for word in response.lower().split()}), "at least", self.N, "different words")


class Conjunctions(Instruction):
    """At least so many different coordinating conjunctions; as published, ``And`` and ``and,`` are two."""

    id: ClassVar[str] = "count:conjunctions"
    small_n: Number

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: what is missing has no place."""
        found = {word for word in response.split() if bare(word).lower() in _CONJUNCTIONS}
        return compared(len(found), "at least", self.small_n, "different conjunctions")


class PersonNames(Instruction):
    """At least so many different names of the benchmark's list; as published, ``Miami`` has ``Mia``."""

    id: ClassVar[str] = "count:person_names"
    N: Number

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: what is missing has no place."""
        return compared(sum(name in response for name in _NAMES), "at least", self.N, "different names")


class Numbers(Instruction):
    """Exactly so many numbers; marks inside one, as in ``1,000``, do not part it."""

    id: ClassVar[str] = "count:numbers"
    N: Number

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: marks between digits are taken out before."""
        return exactly(len(_DIGITS.findall(without_punctuation(response))), self.N, "numbers")


class Pronouns(Instruction):
    """At least so many personal and possessive pronouns."""

    id: ClassVar[str] = "count:pronouns"
    N: Number

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: what is missing has no place."""
        words = without_punctuation(response.replace("/", " ").lower()).split()
        return compared(sum(word in _PRONOUNS for word in words), "at least", self.N, "pronouns")


class Punctuation(Instruction):
    """All of ``. , ! ? ; :`` and a question mark beside an exclamation mark, which counts for neither."""

    id: ClassVar[str] = "count:punctuation"

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: what is missing has no place."""
        if not any(mark in response for mark in _INTERROBANGS):
            return failed("has no interrobang")
        joined = next((mark for mark in ("?!", "!?") if mark in response), "")
        rest = response.replace(joined, "", 1) if joined else response
        missing = [mark for mark in _MARKS if mark not in rest]
        return failed(f"has no {missing[0]!r}") if missing else PASSED


class WordsJapanese(Instruction):
    """Every so-manieth word has a Japanese character; numbers may stand there too."""

    id: ClassVar[str] = "count:words_japanese"
    N: Position

    def verdict(self, response: str) -> Verdict:
        """Points at the first word that should be Japanese and is not."""
        for place, found in enumerate(_CHUNK.finditer(response), 1):
            word = bare(found.group())
            if place % self.N == 0 and word and not word.isdigit() and not _JAPANESE.search(word):
                return failed(f"word {place} is not Japanese", found.span())
        return PASSED


class KeywordsMultiple(Instruction):
    """Five keywords once, twice, three, five and seven times, parts of longer words included."""

    id: ClassVar[str] = "count:keywords_multiple"
    keyword1: Word
    keyword2: Word
    keyword3: Word
    keyword4: Word
    keyword5: Word

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: a count has no place."""
        lowered = response.lower()
        keywords = (self.keyword1, self.keyword2, self.keyword3, self.keyword4, self.keyword5)
        for keyword, wanted in zip(keywords, (1, 2, 3, 5, 7), strict=True):
            count = lowered.count(keyword.strip().lower())
            if count != wanted:
                return failed(f"{count} times {keyword.strip()!r} instead of {wanted}")
        return PASSED
