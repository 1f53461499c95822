"""Right answers turned into ones that a checker finds in violation, for the instruction loss."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ift_training.data.checks import can_judge, judge
from ift_training.data.procedural.constraints import word_pattern
from ift_training.data.procedural.vocabulary import PHRASES, WORDS
from ift_training.data.records import Record

_ATTEMPTS = 24
Breaker = Callable[[Mapping[str, Any], str, random.Random], str]


def violate(record: Record, rng: random.Random) -> str | None:
    """An answer close to the record's own that the record's judge refuses; None where no judge or none is found.

    One requirement is broken where the record names requirements; else a word or a number is changed, or the answer
    cut. The judge has the last word, so an answer that happens to be right as well is never given.
    """
    if not can_judge(record):
        return None
    for _ in range(_ATTEMPTS):
        for broken in _candidates(record, rng):
            if broken.strip() and broken != record.response and not judge(record, broken):
                return broken
    return None


def _candidates(record: Record, rng: random.Random) -> Iterator[str]:
    requirements = list(_requirements(record))
    if requirements:
        chosen = rng.choice(requirements)
        yield _BREAKERS[chosen["type"]](chosen, record.response, rng)
    yield rng.choice(_CHANGES)(record.response, rng)


def _requirements(record: Record) -> Iterator[Mapping[str, Any]]:
    yield from record.checks
    if record.example is None:
        return
    facts = record.example.facts
    yield from record.example.constraints
    yield from facts.get("requirements", ())
    if "frame" in facts:
        yield facts["frame"]
    yield from ({"type": "include", "word": word} for word in facts.get("required", ()))
    if "banned" in facts:
        yield {"type": "avoid", "word": facts["banned"]}


def _no_phrase(requirement: Mapping[str, Any], response: str, rng: random.Random) -> str:
    """Another phrase in place of the one asked for, or none."""
    phrase = requirement["phrase"]
    other = rng.choice([p for p in PHRASES if p != phrase])
    if rng.random() < 0.5:
        return response.replace(phrase, other)
    return response.replace(phrase, "").strip(" :,.\n")


def _no_word(requirement: Mapping[str, Any], response: str, rng: random.Random) -> str:
    pattern = word_pattern(requirement["word"])
    other = rng.choice(WORDS)
    return pattern.sub(lambda m: other.upper() if m.group().isupper() else other, response)


def _with_word(requirement: Mapping[str, Any], response: str, rng: random.Random) -> str:
    """The banned word somewhere in the answer."""
    words = response.split(" ")
    words.insert(rng.randint(1, len(words)), requirement["word"])
    return " ".join(words)


def _other_form(_: Mapping[str, Any], response: str, rng: random.Random) -> str:
    """The items of a list in another form than bullets, JSON or commas."""
    items = [item.strip(" \"'-[]") for item in re.split(r"[,\n]", response)]
    forms: Sequence[str] = ("\n".join(f"- {i}" for i in items), ", ".join(items), "\n".join(items), " ".join(items))
    return rng.choice([form for form in forms if form != response])


def _small_letters(_: Mapping[str, Any], response: str, rng: random.Random) -> str:
    return response.lower() if rng.random() < 0.5 else response.title()


def _too_long(requirement: Mapping[str, Any], response: str, rng: random.Random) -> str:
    words = response.split()
    extra = [rng.choice(WORDS) for _ in range(requirement["limit"] + rng.randint(1, 3))]
    return " ".join([*words, *(w.upper() for w in extra)] if response.isupper() else [*words, *extra])


_BREAKERS: dict[str, Breaker] = {
    "begin": _no_phrase, "end": _no_phrase, "include": _no_word, "avoid": _with_word, "bullets": _other_form,
    "json": _other_form, "commas": _other_form, "upper": _small_letters, "max_words": _too_long,
}  # fmt: skip


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
