"""ROUGE-L between instructions, and a pool in which whatever is too similar to a new one is found fast and exactly."""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"[a-z0-9]+")
_FREQUENT = 0.02
"""Share of the pool that has a word, from which its list is not worth reading."""

_Element = tuple[str, int]
"""A word and which of its occurrences in a text it is: texts share as many of these as words."""


class Match(NamedTuple):
    """The most similar member of a pool: its ROUGE-L F-measure (0 to 1) and its number, by the order of adding."""

    score: float
    member: int


def words(text: str) -> list[str]:
    """The words that ROUGE compares: runs of ASCII letters and digits, in small letters."""
    return _WORD.findall(text.lower())


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004, section 3.1, with beta 1); 0 to 1."""
    return _f_measure(_common(_masks(first), len(first), second), len(first) + len(second))


class SimilarityIndex:
    """A pool of texts, and for a new one the most similar member whose ROUGE-L is above the threshold.

    No pair is left out: the F-measure is 2 L / (m + n) for texts of m and n words whose longest common subsequence has
    L, and L is at most the number of words that both have. Lists of the members that have a word (an inverted index)
    count those, and only members that have enough of them are compared.
    """

    def __init__(self, threshold: float = 0.7) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold: {threshold} is not between 0 and 1")
        self.threshold = threshold
        self._members: list[list[str]] = []
        self._lengths = array("i")
        self._lists: defaultdict[_Element, array[int]] = defaultdict(lambda: array("i"))

    def __len__(self) -> int:
        return len(self._members)

    def add(self, text: str) -> int:
        """Put a text into the pool; its number."""
        member, found = len(self._members), words(text)
        self._members.append(found)
        self._lengths.append(len(found))
        for element in _elements(found):
            self._lists[element].append(member)
        return member

    def most_similar(self, text: str) -> Match | None:
        """The most similar member above the threshold, the first of equals; None where none is above."""
        asked = words(text)
        masks, best = _masks(asked), None
        for member in self._candidates(asked):
            other = self._members[member]
            score = _f_measure(_common(masks, len(asked), other), len(asked) + len(other))
            if score > self.threshold and (best is None or score > best.score):
                best = Match(score, member)
        return best

    def _candidates(self, asked: Sequence[str]) -> Iterator[int]:
        """Every member that may be above the threshold, in order."""
        length = len(asked)
        if not length or not self._members:
            return
        # A word that is left unread can be common too, so members then need one less of the others; one of those at
        # least has to be left, or members that have it would not be seen.
        unread_at_most = int(self._least_common(np.array([length + self._shortest(length)]))[0]) - 1
        lists = sorted((self._lists[e] for e in _elements(asked) if e in self._lists), key=len)
        unread = 0
        while lists and unread < unread_at_most and len(lists[-1]) > _FREQUENT * len(self._members):
            lists.pop()
            unread += 1
        if not lists:
            return
        counts = np.bincount(np.concatenate([np.frombuffer(found, np.int32) for found in lists]))
        members = np.flatnonzero(counts)
        needed = self._least_common(length + np.frombuffer(self._lengths, np.int32)[members].astype(np.int64))
        yield from members[counts[members] + unread >= needed].tolist()

    def _least_common(self, together: NDArray[np.int64]) -> NDArray[np.int64]:
        """Words that two texts of so many words together have in common at least, where they are above the threshold.

        Where rounding could matter the bound is one too low; the comparison itself has the last word.
        """
        return np.floor(self.threshold * together / 2 - 1e-9).astype(np.int64) + 1

    def _shortest(self, length: int) -> int:
        """Words of the shortest member that can be above the threshold: all of them common, 2 n / (m + n) > t."""
        return max(1, int(self.threshold * length / (2 - self.threshold)))


def _elements(found: Sequence[str]) -> Iterator[_Element]:
    seen: Counter[str] = Counter()
    for word in found:
        yield word, seen[word]
        seen[word] += 1


def _masks(found: Sequence[str]) -> dict[str, int]:
    """For each word, the bits of its places."""
    masks: dict[str, int] = {}
    for place, word in enumerate(found):
        masks[word] = masks.get(word, 0) | 1 << place
    return masks


def _common(masks: dict[str, int], length: int, other: Sequence[str]) -> int:
    """Length of the longest common subsequence (Hyyrö 2004): a row of the table of lengths in the bits of a number."""
    full = (1 << length) - 1
    row = full
    for word in other:
        if (mask := masks.get(word)) is not None:
            matched = row & mask
            row = ((row + matched) | (row - matched)) & full
    return length - row.bit_count()


def _f_measure(common: int, together: int) -> float:
    """2 P R / (P + R) with P = L / m and R = L / n, as one division, so that equal fractions are equal numbers."""
    return 2 * common / together if common else 0.0
