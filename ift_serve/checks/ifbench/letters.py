"""Instructions about the letters that words are made of or begin with."""

from __future__ import annotations

import re
import string
from collections import Counter
from itertools import pairwise
from typing import ClassVar

from ift_serve.checks.errors import MissingExtraError
from ift_serve.checks.ifbench.arguments import Number
from ift_serve.checks.ifbench.text import bare, without_punctuation
from ift_serve.checks.instruction import Instruction
from ift_serve.checks.verdict import PASSED, Verdict, failed

_ALPHABET = string.ascii_lowercase
_VOWELS = frozenset("aeiou")
_CLUSTER = re.compile("[bcdfghjklmnpqrstvwxyz]{2}")
_CHUNK = re.compile(r"\S+")
_PRIMES = frozenset(n for n in range(2, 100) if all(n % k for k in range(2, n)))
_BLANK_LINE = re.compile(r"\r?\n[^\S\r\n]*\r?\n")
_MOST_VOWELS = 3
_PALINDROMES, _SHORTEST_PALINDROME = 10, 5


class Alphabet(Instruction):
    """Each word begins with the letter of the alphabet that comes after the one before."""

    id: ClassVar[str] = "words:alphabet"

    def verdict(self, response: str) -> Verdict:
        """Names the first word that is out of order."""
        words = without_punctuation(response).split()
        if not words or words[0][0].lower() not in _ALPHABET:
            return failed("does not begin with a letter from a to z")
        place = _ALPHABET.index(words[0][0].lower())
        for word in words[1:]:
            place = (place + 1) % len(_ALPHABET)
            if word[0].lower() != _ALPHABET[place]:
                return failed(f"{word!r:.80} does not begin with {_ALPHABET[place]!r}")
        return PASSED


class Vowel(Instruction):
    """One paragraph with at most three different vowels.

    The published code takes every line for a paragraph; the repaired one looks for blank lines.
    """

    id: ClassVar[str] = "words:vowel"

    def verdict(self, response: str) -> Verdict:
        """Points at the first vowel that is one too many."""
        paragraphs = [part for part in _BLANK_LINE.split(response.strip()) if part.strip()]
        return self._judged(response, len(paragraphs))

    def published(self, response: str) -> Verdict:
        """Lines are paragraphs."""
        return self._judged(response, len(response.strip().split("\n")))

    @staticmethod
    def _judged(response: str, paragraphs: int) -> Verdict:
        if paragraphs != 1:
            return failed(f"{paragraphs} paragraphs instead of 1")
        seen: set[str] = set()
        for place, letter in enumerate(response):
            seen |= _VOWELS & set(letter.lower())
            if len(seen) > _MOST_VOWELS:
                return failed("has more than three vowels", (place, place + 1))
        return PASSED


class Consonants(Instruction):
    """Every word has two consonants side by side."""

    id: ClassVar[str] = "words:consonants"

    def verdict(self, response: str) -> Verdict:
        """Points at the first word without."""
        for found in _CHUNK.finditer(response):
            if not _CLUSTER.search(found.group().lower()):
                return failed("a word has no two consonants side by side", found.span())
        return PASSED


class Palindrome(Instruction):
    """At least ten palindromes of five letters or more."""

    id: ClassVar[str] = "words:palindrome"

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: what is missing has no place."""
        words = without_punctuation(response).lower().split()
        count = sum(len(word) >= _SHORTEST_PALINDROME and word == word[::-1] for word in words)
        return PASSED if count >= _PALINDROMES else failed(f"{count} palindromes instead of at least {_PALINDROMES}")


class PrimeLengths(Instruction):
    """Every word has a prime number of characters below 100."""

    id: ClassVar[str] = "words:prime_lengths"

    def verdict(self, response: str) -> Verdict:
        """Names the first word of another length."""
        other = next((word for word in without_punctuation(response).split() if len(word) not in _PRIMES), None)
        return PASSED if other is None else failed(f"{other!r:.80} has {len(other)} characters")


class Repeats(Instruction):
    """No word comes more than so many times, in any case."""

    id: ClassVar[str] = "words:repeats"
    small_n: Number

    def verdict(self, response: str) -> Verdict:
        """Names the first word that comes more often."""
        counts = Counter(without_punctuation(response.lower()).split())
        often = next((word for word, count in counts.items() if count > self.small_n), None)
        return PASSED if often is None else failed(f"{often!r:.80} comes {counts[often]} times")


class NoConsecutive(Instruction):
    """No two words side by side begin with the same letter."""

    id: ClassVar[str] = "words:no_consecutive"

    def verdict(self, response: str) -> Verdict:
        """Names the first two that do."""
        words = without_punctuation(response.lower()).split()
        for first, second in pairwise(words):
            if first[0] == second[0]:
                return failed(f"{first!r:.80} and {second!r:.80} begin with the same letter")
        return PASSED


class OddEvenSyllables(Instruction):
    """Words with odd and even numbers of syllables take turns, as the package syllapy counts them."""

    id: ClassVar[str] = "words:odd_even_syllables"

    def verdict(self, response: str) -> Verdict:
        """Names the first two words that do not. Raises MissingExtraError without the package."""
        try:
            import syllapy
        except ImportError as error:
            raise MissingExtraError("the number of syllables", "syllapy", "eval") from error
        words = without_punctuation(response).lower().split()
        parities = [syllapy.count(word) % 2 for word in words]
        for place in range(len(words) - 1):
            if parities[place] == parities[place + 1]:
                return failed(
                    f"{words[place]!r:.80} and {words[place + 1]!r:.80} are both {('even', 'odd')[parities[place]]}"
                )
        return PASSED


class ParagraphLastFirst(Instruction):
    """Every line begins and ends with the same word, in any case."""

    id: ClassVar[str] = "words:paragraph_last_first"

    def verdict(self, response: str) -> Verdict:
        """Points at the first line that does not."""
        start = 0
        for line in response.split("\n"):
            words = bare(line.strip().lower()).split()
            if line.strip() and (not words or words[0] != words[-1]):
                return failed("a paragraph does not end with its first word", (start, start + len(line)))
            start += len(line) + 1
        return PASSED
