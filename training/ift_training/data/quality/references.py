"""How close an answer is to one that is known to be good: in words, and in meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from ift_training.data.embedding import SentenceEncoder
from ift_training.data.generation.rouge import rouge_l, words
from ift_training.data.quality.filter import DIGITS, NOTHING, Filter, Finding
from ift_training.data.quality.pair import Pair


class References(Filter):
    """The larger of ROUGE-L's F1 and, with an encoder, the cosine, over the references; none of a pair without any."""

    name: ClassVar[str] = "references"
    good: ClassVar[Literal["high", "low"]] = "high"

    def __init__(self, encoder: SentenceEncoder | None = None) -> None:
        self._encoder = encoder

    def depends_on(self) -> object:
        """The sentence model, if there is one."""
        return None if self._encoder is None else self._encoder.identity

    def score(self, pairs: Sequence[Pair]) -> list[Finding]:
        """See :class:`Filter`."""
        close = self._cosines(pairs)
        found = []
        for pair, cosine in zip(pairs, close, strict=True):
            if not pair.references:
                found.append(NOTHING)
                continue
            best = max(rouge_l(words(reference), words(pair.response)) for reference in pair.references)
            found.append(Finding(round(max(best, cosine), DIGITS), "is unlike every reference"))
        return found

    def _cosines(self, pairs: Sequence[Pair]) -> list[float]:
        """The largest cosine of each answer with one of its references; 0 without an encoder."""
        if self._encoder is None or not any(pair.references for pair in pairs):
            return [0.0] * len(pairs)
        texts = [text for pair in pairs if pair.references for text in (pair.response, *pair.references)]
        vectors = iter(self._encoder.encode(texts))
        found = []
        for pair in pairs:
            if not pair.references:
                found.append(0.0)
                continue
            own = next(vectors)
            found.append(max(0.0, *(float(own @ next(vectors)) for _ in pair.references)))
        return found
