"""Answers that contradict what they were given, or themselves: by numbers, names, negations and wrong sums."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from ift_serve.checks.equations import equations
from ift_serve.checks.words import listed
from ift_training.data.quality.filter import Finding, TextFilter
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.statements import disagreements
from ift_training.data.quality.words import Sentence, sentences, words

_CHANGES = frozenset(
    listed(
        """rewrite reword replace change correct fix edit opposite negate negation negative antonym reverse swap
        imagine pretend fictional instead contradict convert translate paraphrase disagree invent alternative"""
    )
)
"""Words of instructions that ask for something else than the text says."""
_COMPUTES = re.compile(
    r"\bhow old\b|\bhow (?:many|much|long|far)\b.*"
    r"\b(?:left|now|total|altogether|together|remain\w*|more|fewer|after|in all)\b"
    r"|\b(?:add|subtract|multiply|divide|sum|difference|calculat\w*|compute|convert|maths?|solve|equation|prove)\b",
    re.IGNORECASE | re.DOTALL,
)
"""Instructions whose answer is a number that the text does not have."""
_CLAIMS = {
    "number": "says {said} where the text says {instead}",
    "name": "names {said} where the text names {instead}",
    "negation": "denies what the text says, or says what it denies",
    "opposite": "says {said} where the text says {instead}",
}


class Contradiction(TextFilter):
    """0 where nothing disagrees, up to 1 for a sentence of the answer that is one of the text but for a fact.

    Sentences are compared that share most of their words; English only. An instruction that asks for a changed text is
    not held against the answer. Wrong sums that are written out, and an answer that both says and denies a thing, are
    contradictions too. A fact that no sentence of the text is close to is none: the model that is asked
    (:mod:`ift_training.data.quality.asked_model`) may see it.
    """

    name: ClassVar[str] = "contradiction"
    good: ClassVar[Literal["high", "low"]] = "low"

    def look(self, pair: Pair) -> Finding:
        """Points at the sentence that disagrees most."""
        for equation in equations(pair.response):
            if not equation.is_true and equation.text not in pair.source:
                return Finding(1.0, f"{equation.text} is wrong", equation.span)
        said = sentences(pair.response)
        if (pair.context or pair.earlier) and not _CHANGES.intersection(words(pair.instruction)):
            found = list(disagreements(_text(pair), said))
            if _COMPUTES.search(pair.instruction):
                found = [each for each in found if each.kind != "number"]
            if found:
                worst = max(found, key=lambda each: each.weight)
                claim = _CLAIMS[worst.kind].format(said=worst.said, instead=worst.instead)
                return Finding(worst.weight, claim, worst.sentence.span)
        return _with_itself(said)


def _text(pair: Pair) -> list[Sentence]:
    """What the answer is held against. An instruction asks for something: it states no facts."""
    return [s for text in (*pair.earlier, pair.context) for s in sentences(text)]


def _with_itself(said: list[Sentence]) -> Finding:
    """Sentences of the answer that say and deny the same."""
    seen: dict[tuple[frozenset[str], frozenset[str]], bool] = {}
    for sentence in said:
        key = (sentence.content, sentence.names | sentence.numbers)
        if len(sentence.content) > 1 and seen.setdefault(key, sentence.is_negated) != sentence.is_negated:
            return Finding(0.9, "says and denies the same", sentence.span)
    return Finding(0.0)
