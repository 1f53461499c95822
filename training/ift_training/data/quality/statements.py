"""Sentences of two texts that speak of the same, and in what they disagree: numbers, names, negations, opposites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ift_serve.checks.words import listed
from ift_training.data.quality.words import Sentence, stem

Kind = Literal["number", "name", "negation", "opposite"]
_MOST = 60
"""Sentences of a text that are compared: the work grows with their product."""
_SHARED = 2
"""Content words that two sentences must share to speak of the same."""
_ALIKE, _VERY_ALIKE, _SAME = 0.6, 0.7, 0.8
"""Shares of common words from which on names and numbers, negations, and words of small numbers are compared."""
_MANY = 4
"""Content words that two sentences must share for a name that only one of them has to be a wrong one."""
_DENIED = 3
"""Things that a sentence must have in common with the one that it denies a part of."""
_SURE, _LIKELY = 1.0, 0.8
_PAIRS = (
    "increase decrease", "rise fall", "rose fell", "grow shrink", "grew shrank", "open close", "accept reject",
    "win lose", "won lost", "higher lower", "larger smaller", "longer shorter", "older younger", "first last",
    "always never", "before after", "above below", "inside outside", "north south", "east west", "hot cold",
    "warm cold", "early late", "full empty", "safe dangerous", "allow forbid", "allowed forbidden", "best worst",
    "true false", "left right", "cheap expensive", "heavy light", "strong weak", "more less", "more fewer",
    "most least", "begin end", "began ended", "start stop", "buy sell", "bought sold", "love hate", "loved hated",
    "day night", "morning evening", "summer winter", "free paid", "public private", "major minor", "wet dry",
    "fast slow", "even odd",
)  # fmt: skip
OPPOSITES: dict[str, frozenset[str]] = {}
for _first, _second in (listed(pair) for pair in _PAIRS):
    for _one, _other in ((_first, _second), (_second, _first)):
        OPPOSITES[stem(_one)] = OPPOSITES.get(stem(_one), frozenset()) | {stem(_other)}


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A sentence that says otherwise than the text. weight: 0 to 1, how sure that is."""

    kind: Kind
    sentence: Sentence
    weight: float
    said: str = ""
    instead: str = ""


def disagreements(text: Sequence[Sentence], said: Sequence[Sentence]) -> Iterator[Disagreement]:
    """Where sentences disagree with the ones of a text that they are closest to, or with its names and counts."""
    text = [sentence for sentence in text[:_MOST] if not sentence.is_question]
    if not text:
        return
    numbers = frozenset(number for sentence in text for number in sentence.numbers)
    names = frozenset(name for sentence in text for name in sentence.names)
    for own in said[:_MOST]:
        yield from _counts(text, own, numbers)
        yield from _full_names(text, own, names)
        yield from _denials(text, own)
        closest = max(text, key=lambda other: (_alike(own, other), len(own.keys & other.keys)))
        alike = _alike(own, closest)
        if alike >= _ALIKE:
            yield from _with_closest(own, closest, alike, numbers, names)


def _with_closest(
    own: Sentence, closest: Sentence, alike: float, numbers: frozenset[str], names: frozenset[str]
) -> Iterator[Disagreement]:
    weight = _LIKELY + (_SURE - _LIKELY) * (alike - _ALIKE) / (1 - _ALIKE)
    known = frozenset() if alike >= _SAME and len(own.numbers) == len(closest.numbers) == 1 else numbers
    new, lost = own.numbers - closest.numbers - known, closest.numbers - own.numbers
    if new and lost:
        yield Disagreement("number", own, weight, min(new), min(lost))
    new, lost = own.names - names, closest.names - own.names
    if new and lost:
        yield Disagreement("name", own, weight, min(new), min(lost))
    elif new and alike >= _SAME and len(own.content & closest.content) >= _MANY:
        yield Disagreement("name", own, _LIKELY - 0.2, min(new), "none")
    if alike < _VERY_ALIKE:
        return
    if own.is_negated != closest.is_negated:
        yield Disagreement("negation", own, _LIKELY)
    for word in sorted(own.content - closest.content):
        if opposite := sorted(OPPOSITES.get(word, frozenset()) & (closest.content - own.content)):
            yield Disagreement("opposite", own, _LIKELY, word, opposite[0])


def _counts(text: Sequence[Sentence], own: Sentence, numbers: frozenset[str]) -> Iterator[Disagreement]:
    """A number that the text does not have, of things that the text counts otherwise."""
    for number, thing in sorted(own.counted):
        counted = sorted({other for sentence in text for other, same in sentence.counted if same == thing})
        if number not in numbers and counted:
            yield Disagreement("number", own, _LIKELY, f"{number} {thing}", counted[0])


def _full_names(text: Sequence[Sentence], own: Sentence, names: frozenset[str]) -> Iterator[Disagreement]:
    """Half of a name of the text with another half that the text does not know, in a sentence about the same."""
    for first, last in sorted(own.full_names):
        for sentence in text:
            if len(own.keys & sentence.keys) < _SHARED:
                continue
            for other, same in sorted(sentence.full_names):
                if (last == same and first not in names) or (first == other and last not in names):
                    yield Disagreement("name", own, _LIKELY + 0.1, f"{first} {last}", f"{other} {same}")


def _denials(text: Sequence[Sentence], own: Sentence) -> Iterator[Disagreement]:
    """A part of a sentence that the text says without a negation, or denies."""
    for sentence in text:
        one_sided = (own.denied & sentence.content) - sentence.denied or (sentence.denied & own.content) - own.denied
        if one_sided and len(own.keys & sentence.keys) >= _DENIED and own.is_negated != sentence.is_negated:
            yield Disagreement("negation", own, _LIKELY - 0.1, min(one_sided))


def _alike(own: Sentence, other: Sentence) -> float:
    """Share of the words of the sentence with fewer that both have; opposites are the same."""
    turned = sum(1 for word in own.content - other.content if OPPOSITES.get(word, frozenset()) & other.content)
    shared = len(own.content & other.content) + turned
    if shared < _SHARED:
        return 0.0
    fewer, more = sorted((len(own.content), len(other.content)))
    # A short sentence is part of many long ones: what they are made of besides counts a little too.
    return 0.75 * shared / fewer + 0.25 * shared / more
