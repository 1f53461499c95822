"""Answers that go round in circles."""

from __future__ import annotations

import re
from collections import Counter
from typing import ClassVar, Literal

from ift_serve.checks.words import listed
from ift_training.data.quality.filter import NOTHING, Finding, TextFilter
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.words import words

_RUN = 3
"""Words of a run that is counted."""
_LEAST = 8
"""Words from which on repetition is a fault; ``no, no, no`` may be an answer."""
_ADDRESS = re.compile(r"\b(?:https?://|www\.)\S+")
_ASKED = frozenset(listed("repeat repeated repeats repetition times refrain chorus copies echo lullaby"))
"""Words of instructions that ask for repetition."""


class Repetition(TextFilter):
    """Share of the answer's runs of three words that were there before in it (Rae et al. 2021, appendix A.1).

    Nothing of an answer to an instruction that speaks of repetition.
    """

    name: ClassVar[str] = "repetition"
    good: ClassVar[Literal["high", "low"]] = "low"

    def look(self, pair: Pair) -> Finding:
        """Names the run that comes most often."""
        said = words(_ADDRESS.sub(" ", pair.response))
        if len(said) < _LEAST or _ASKED.intersection(words(pair.instruction)):
            return NOTHING
        counted = Counter(_runs(said))
        every = counted.total()
        if not every:
            return NOTHING
        run, times = counted.most_common(1)[0]
        score = (every - len(counted)) / every
        return Finding(score, f"says {' '.join(run)!r} {times} times" if times > 1 else "")


def _runs(said: list[str]) -> list[tuple[str, ...]]:
    """Runs with a word in them; digits and single letters repeat in every formula."""
    every = zip(*(said[start:] for start in range(_RUN)), strict=False)
    return [run for run in every if any(len(word) > 2 and word.isalpha() for word in run)]
