"""Right answers turned into ones that a checker finds in violation, for the instruction loss."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ift_serve.checks import Check, judge_all
from ift_serve.checks.phrases import Avoid, Begin, End, Include, MaxWords
from ift_serve.checks.words import WordFinder
from ift_training.data.procedural.vocabulary import PHRASES, WORDS
from ift_training.data.records import Record

_ATTEMPTS = 24
Breaker = Callable[[Any, str, random.Random], str]
"""Takes a check of its own type, a response and a source of chance."""


def violate(record: Record, rng: random.Random) -> str | None:
    """An answer close to the record's own that its checks refuse; None where there are none or none is found.

    One check is broken where there is a way to break it; else a word or a number is changed, or the answer
    cut. The checks have the last word, so an answer that happens to be right as well is never given.
    """
    if not record.checks:
        return None
    for _ in range(_ATTEMPTS):
        for broken in _candidates(record, rng):
            if broken.strip() and broken != record.response and not judge_all(record.checks, broken):
                return broken
    return None


def _candidates(record: Record, rng: random.Random) -> Iterator[str]:
    breakable = [check for check in record.checks if check.type in _BREAKERS]
    if breakable:
        chosen = rng.choice(breakable)
        yield _BREAKERS[chosen.type](chosen, record.response, rng)
    yield rng.choice(_CHANGES)(record.response, rng)


def _no_phrase(check: Begin | End, response: str, rng: random.Random) -> str:
    """Another phrase in place of the one asked for, or none."""
    phrase = check.phrase
    other = rng.choice([p for p in PHRASES if p != phrase])
    if rng.random() < 0.5:
        return response.replace(phrase, other)
    return response.replace(phrase, "").strip(" :,.\n")


def _no_word(check: Include, response: str, rng: random.Random) -> str:
    """Another word wherever the one asked for stands, in capitals where it is."""
    other, place, parts = rng.choice(WORDS), 0, []
    for start, end in WordFinder(response).spans(check.word):
        parts += [response[place:start], other.upper() if response[start:end].isupper() else other]
        place = end
    return "".join([*parts, response[place:]])


def _with_word(check: Avoid, response: str, rng: random.Random) -> str:
    """The banned word somewhere in the answer."""
    words = response.split(" ")
    words.insert(rng.randint(1, len(words)), check.word)
    return " ".join(words)


def _other_form(_: Check, response: str, rng: random.Random) -> str:
    """The items of a list in another form than bullets, JSON or commas."""
    items = [item.strip(" \"'-[]") for item in re.split(r"[,\n]", response)]
    forms: Sequence[str] = ("\n".join(f"- {i}" for i in items), ", ".join(items), "\n".join(items), " ".join(items))
    return rng.choice([form for form in forms if form != response])


def _small_letters(_: Check, response: str, rng: random.Random) -> str:
    return response.lower() if rng.random() < 0.5 else response.title()


def _too_long(check: MaxWords, response: str, rng: random.Random) -> str:
    words = response.split()
    extra = [rng.choice(WORDS) for _ in range(check.limit + rng.randint(1, 3))]
    return " ".join([*words, *(w.upper() for w in extra)] if response.isupper() else [*words, *extra])


_BREAKERS: dict[str, Breaker] = {
    "begin": _no_phrase,
    "end": _no_phrase,
    "include": _no_word,
    "avoid": _with_word,
    "bullets": _other_form,
    "json": _other_form,
    "commas": _other_form,
    "upper": _small_letters,
    "max_words": _too_long,
}


def _other_number(response: str, rng: random.Random) -> str:
    numbers = list(re.finditer(r"\d+", response))
    if not numbers:
        return _other_word(response, rng)
    found = rng.choice(numbers)
    changed = max(0, int(found.group()) + rng.choice((-10, -2, -1, 1, 2, 10)))
    return response[: found.start()] + str(changed) + response[found.end() :]


def _other_word(response: str, rng: random.Random) -> str:
    words = list(re.finditer(r"[A-Za-z]+", response))
    if not words:
        return response + " " + rng.choice(WORDS)
    found, other = rng.choice(words), rng.choice(WORDS)
    other = other.upper() if found.group().isupper() and len(found.group()) > 1 else other
    return response[: found.start()] + other + response[found.end() :]


def _less(response: str, rng: random.Random) -> str:
    words = response.split(" ")
    if len(words) < 2:
        return _other_word(response, rng)
    del words[rng.randrange(len(words))]
    return " ".join(words)


def _swapped(response: str, rng: random.Random) -> str:
    words = response.split(" ")
    if len(words) < 2:
        return _other_word(response, rng)
    a, b = rng.sample(range(len(words)), 2)
    words[a], words[b] = words[b], words[a]
    return " ".join(words)


def _cut(response: str, rng: random.Random) -> str:
    words = response.split(" ")
    return " ".join(words[: max(1, len(words) // 2)])


_CHANGES: tuple[Callable[[str, random.Random], str], ...] = (_other_number, _other_word, _less, _swapped, _cut)
