"""What every filter has: a name, a score of each pair, and a reason where the score speaks against it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ift_serve.checks.verdict import Span
from ift_training.data.quality.pair import Pair


@dataclass(frozen=True, slots=True)
class Finding:
    """What a filter found in a pair.

    score: 0 to 1, None where the filter has nothing to go by. reason: what speaks against the pair, in words; empty
    where nothing does. span: the characters of the response that it is about.
    """

    score: float | None
    reason: str = ""
    span: Span | None = None


NOTHING = Finding(None)
DIGITS = 4
"""Of a score: what is kept does not depend on the last bits of a product."""


class Filter(ABC):
    """Scores pairs, each by itself: what it says of one does not depend on the others.

    good: whether high or low scores are good ones. revision: counted up when a change makes scores differ, so that
    stored ones are computed anew.
    """

    name: ClassVar[str]
    good: ClassVar[Literal["high", "low"]]
    revision: ClassVar[int] = 1

    @abstractmethod
    def score(self, pairs: Sequence[Pair]) -> list[Finding]:
        """One finding a pair, in their order."""

    def depends_on(self) -> object:
        """Plain values besides the pair that a score depends on."""
        return None


class TextFilter(Filter):
    """A filter that needs nothing but the text of one pair."""

    def score(self, pairs: Sequence[Pair]) -> list[Finding]:
        """See :class:`Filter`."""
        return [self.look(pair) for pair in pairs]

    @abstractmethod
    def look(self, pair: Pair) -> Finding:
        """The finding of one pair."""


def severity(score: float, good: str) -> float:
    """How much a score speaks against its pair, 0 to 1."""
    return min(1.0, max(0.0, 1.0 - score if good == "high" else score))
