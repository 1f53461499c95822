"""Records that hold what a model will be examined on: by runs of words, and by meaning."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from ift_training.data.embedding import SentenceEncoder
from ift_training.data.quality.filter import DIGITS, Filter, Finding
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.words import words

_AT_ONCE = 4096
"""Examination texts beside which pairs are laid at a time."""


class SharedRuns(Filter):
    """The largest share of an examination text's runs of ``run`` words that stand in the pair.

    A text of fewer words is one run. Prompts of an examination that begin alike are told apart by the rest of them:
    runs that more than ``common`` texts share are nobody's.
    """

    name: ClassVar[str] = "shared_runs"
    good: ClassVar[Literal["high", "low"]] = "low"

    def __init__(self, texts: Sequence[str], run: int = 8, common: int = 3) -> None:
        self._run = run
        self._texts = texts
        own = [frozenset(_runs(words(text), run)) for text in texts]
        shared = Counter(each for runs in own for each in runs)
        self._of: dict[str, list[int]] = {}
        self._counts: list[int] = []
        lengths = set()
        for index, runs in enumerate(own):
            kept = [each for each in runs if shared[each] <= common]
            self._counts.append(len(kept))
            for each in kept:
                self._of.setdefault(each, []).append(index)
                lengths.add(each.count(" ") + 1)
        self._lengths = sorted(lengths)

    def depends_on(self) -> object:
        """The texts and the length of a run."""
        return [self._run, _digest(self._texts)]

    def score(self, pairs: Sequence[Pair]) -> list[Finding]:
        """See :class:`Filter`."""
        return [self._look(pair) for pair in pairs]

    def _look(self, pair: Pair) -> Finding:
        found: Counter[int] = Counter()
        for text in (pair.source, pair.response):
            said = words(text)
            own = {run for length in self._lengths for run in _windows(said, length)}
            for run in own & self._of.keys():
                found.update(self._of[run])
        if not found:
            return Finding(0.0)
        index, shared = min(found.items(), key=lambda one: (-one[1] / self._counts[one[0]], one[0]))
        score = round(min(1.0, shared / self._counts[index]), DIGITS)
        return Finding(score, f"holds words of the examination: {self._texts[index]!r:.120}")


class SharedMeaning(Filter):
    """The largest cosine of what is asked with a text of the examination."""

    name: ClassVar[str] = "shared_meaning"
    good: ClassVar[Literal["high", "low"]] = "low"

    def __init__(self, texts: Sequence[str], encoder: SentenceEncoder) -> None:
        self._texts = texts
        self._encoder = encoder
        self._vectors = encoder.encode(texts)

    def depends_on(self) -> object:
        """The texts and the sentence model."""
        return [_digest(self._texts), self._encoder.identity]

    def score(self, pairs: Sequence[Pair]) -> list[Finding]:
        """See :class:`Filter`."""
        own = self._encoder.encode([pair.asked for pair in pairs])
        best = np.zeros(len(pairs), np.float32)
        place = np.zeros(len(pairs), np.int64)
        for start in range(0, len(self._texts), _AT_ONCE):
            cosines = own @ self._vectors[start : start + _AT_ONCE].T
            top, where = cosines.max(1), cosines.argmax(1) + start
            better = top > best
            best, place = np.where(better, top, best), np.where(better, where, place)
        return [
            Finding(round(float(score), DIGITS), f"asks what the examination asks: {self._texts[index]!r:.120}")
            for score, index in zip(best.tolist(), place.tolist(), strict=True)
        ]


def _runs(said: Sequence[str], length: int) -> list[str]:
    """Every run of so many words; a shorter text is one."""
    return _windows(said, min(length, len(said))) if said else []


def _windows(said: Sequence[str], length: int) -> list[str]:
    return [" ".join(said[start : start + length]) for start in range(len(said) - length + 1)]


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
