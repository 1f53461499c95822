"""Whether an answer is about what was asked: how close the two are in meaning, beside how close others are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from ift_training.data.embedding import SentenceEncoder
from ift_training.data.quality.filter import DIGITS, NOTHING, Filter, Finding
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.words import words

_LEAST = 4
"""Words of an answer that can be about something; "No." and "42" answer anything."""


class Coherence(Filter):
    """The cosine of what is asked and what is answered; a negative one counts as 0.

    Nothing of an answer of fewer than four words. An answer can be right and score low where it shares no subject with
    the question, as code and sums may: a low score is a reason to look, not a proof.
    """

    name: ClassVar[str] = "coherence"
    good: ClassVar[Literal["high", "low"]] = "high"

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder

    def depends_on(self) -> object:
        """The sentence model."""
        return self._encoder.identity

    def score(self, pairs: Sequence[Pair]) -> list[Finding]:
        """See :class:`Filter`."""
        long = [pair for pair in pairs if len(words(pair.response)) >= _LEAST]
        vectors = self._encoder.encode([text for pair in long for text in (pair.asked, pair.response)])
        cosines = iter((vectors[0::2] * vectors[1::2]).sum(1))
        chosen = {id(pair) for pair in long}
        return [
            Finding(round(max(0.0, float(next(cosines))), DIGITS), "is about something else than what was asked")
            if id(pair) in chosen
            else NOTHING
            for pair in pairs
        ]
