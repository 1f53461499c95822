"""How much an instruction asks for, as a level from 1 to 5: what acceptance is balanced over."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from ift_serve.checks.words import listed
from ift_training.data.quality.filter import Finding, TextFilter
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.requirements import requirements
from ift_training.data.quality.words import words

LEVELS = (1, 2, 3, 4, 5)
_REASONING = frozenset(
    listed(
        """why because explain compare contrast analyse analyze prove derive justify evaluate argue discuss design plan
        optimise optimize estimate calculate infer deduce hypothesise consider assess critique implications steps"""
    )
)
_CLAUSES = frozenset(
    listed("and or but if then unless while although whereas which that who when after before where so")
)
_LONG = 9
"""Letters of a long word."""
_CUTS = (0.18, 0.22, 0.25, 0.30)
"""Scores from which on a level begins, the second first: fifths of 427 instructions that people wrote (the seed tasks
and the user-oriented tasks of Self-Instruct)."""


class Complexity(TextFilter):
    """0 to 1, of the instruction with its context and the number of steps of its answer; speaks against nothing.

    The mean of five parts, each 0 to 1: length of what is asked (1 at 256 words), requirements on the answer (1 at
    five), words that ask for reasoning (1 at three), clauses (1 at eight) and share of long words (1 at 0.3). Half of
    the answer's length (1 at 256 words) is added, divided by 5.5 in all.
    """

    name: ClassVar[str] = "complexity"
    revision: ClassVar[int] = 2
    good: ClassVar[Literal["high", "low"]] = "high"

    def look(self, pair: Pair) -> Finding:
        """See the class."""
        asked = words(pair.asked)
        own = words(pair.instruction)
        parts = (
            _length(len(asked)),
            min(1.0, (len(requirements(pair.instruction)) + len(pair.checks)) / 5),
            min(1.0, len(_REASONING.intersection(own)) / 3),
            min(1.0, sum(word in _CLAUSES for word in own) / 8),
            min(1.0, sum(len(word) >= _LONG for word in asked) / max(1, len(asked)) / 0.3),
        )
        return Finding((sum(parts) + 0.5 * _length(len(words(pair.response)))) / 5.5)


def _length(count: int) -> float:
    return min(1.0, math.log2(1 + count) / 8)


def level(score: float) -> int:
    """The level of a score."""
    return 1 + sum(score >= cut for cut in _CUTS)
