"""Adherence scores of a response: of its tokens as they are computed, and of the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence

_RESPONSE = 3

Judged = tuple[float, float]
"""A token's score in the pooling, and its value: see ``AdherenceHead.of_tokens``."""


def first_required(segments: bytes, begin: int) -> int:
    """The position before the first that is pooled: an earlier answer's in the prompt, or ``begin``, this one's first.

    The first token is a target of the position before it.
    """
    found = segments.find(bytes([_RESPONSE]))
    return max(0, (begin if found < 0 else min(found, begin)) - 1)


class JudgedTokens:
    """Collects the tokens from position ``first`` on, in order.

    ``segments``: of the prompt; earlier answers in it count, as they do in training. ``begin``: where the answer
    begins; tokens between the prompt and it, such as a thought, do not count.
    """

    def __init__(self, segments: bytes, begin: int) -> None:
        self._segments = segments
        self._begin = begin
        self.first = first_required(segments, begin)
        self._known: list[Judged] = []

    def add(self, judged: Sequence[Judged]) -> None:
        """The next positions."""
        self._known += judged

    def logit(self) -> float:
        """Of "this response follows its instruction": ``sum_t softmax(s)_t v_t`` over the tokens that count."""
        counted = [pair for place, pair in enumerate(self._known, self.first) if self._counts(place)]
        top = max(score for score, _ in counted)
        weights = [math.exp(score - top) for score, _ in counted]
        return sum(w * value for w, (_, value) in zip(weights, counted, strict=True)) / sum(weights)

    def _counts(self, place: int) -> bool:
        return place >= self._begin or (place < len(self._segments) and self._segments[place] == _RESPONSE)


def probability(logit: float) -> float:
    """``1 / (1 + e^-logit)``, without overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))
