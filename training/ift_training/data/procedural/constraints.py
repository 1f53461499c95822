"""Requirements on the form of an answer, each with its wording and its checker."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from ift_training.data.procedural.example import PASSED, Verdict
from ift_training.data.procedural.vocabulary import PHRASES, WORDS

Constraint = Mapping[str, Any]
_LONGEST_INTEGER = 4000


def _begin(constraint: Constraint, response: str) -> Verdict:
    phrase = constraint["phrase"]
    text = response.strip()
    return (
        PASSED
        if text.startswith(phrase.strip())
        else Verdict(False, f"does not begin with {phrase!r}", (0, min(len(text), len(phrase))))
    )


def _end(constraint: Constraint, response: str) -> Verdict:
    phrase = constraint["phrase"]
    text = response.strip()
    # Full stops may follow the phrase; the phrase's own are wanted as they are.
    body, wanted = phrase.strip().rstrip(".!"), phrase.strip()
    marks, found = wanted[len(body) :], text[len(text.rstrip(".!")) :]
    if text.rstrip(".!").endswith(body) and (found.startswith(marks) if body else marks in found):
        return PASSED
    return Verdict(False, f"does not end with {phrase!r}", (max(0, len(text) - len(phrase)), len(text)))


def word_pattern(word: str) -> re.Pattern[str]:
    """Finds a word by itself: no letter or digit goes on from an end of it that is one."""
    word = word.strip()
    before = r"(?<!\w)" if re.match(r"\w", word) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", word) else ""
    return re.compile(before + re.escape(word) + after, re.IGNORECASE)


def _include(constraint: Constraint, response: str) -> Verdict:
    word = constraint["word"]
    found = word_pattern(word).search(response)
    return PASSED if found else Verdict(False, f"does not contain {word!r}")


def _avoid(constraint: Constraint, response: str) -> Verdict:
    word = constraint["word"]
    found = word_pattern(word).search(response)
    return Verdict(False, f"contains {word!r}", found.span()) if found else PASSED


def _bullets(constraint: Constraint, response: str) -> Verdict:
    lines = [line for line in response.strip().splitlines() if line.strip()]
    bad = next((line for line in lines if not re.match(r"- \S", line)), None)
    if bad is not None or not lines:
        return Verdict(False, "a line does not begin with '- '" if lines else "empty answer")
    return PASSED


def parse_json(response: str) -> Any:
    """The value of an answer that is JSON as RFC 8259 has it, NaN and infinities excluded. Raises ValueError."""
    try:
        return json.loads(response.strip(), parse_constant=_no_constant, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no value of it")


def _integer(digits: str) -> int | float:
    """Python converts no text of many thousand digits to an integer."""
    if len(digits) < _LONGEST_INTEGER:
        return int(digits)
    return -math.inf if digits.startswith("-") else math.inf


def _json(constraint: Constraint, response: str) -> Verdict:
    try:
        parse_json(response)
    except ValueError as error:
        return Verdict(False, f"not JSON: {error}")
    return PASSED


def _commas(constraint: Constraint, response: str) -> Verdict:
    text = response.strip().rstrip(".")
    return PASSED if re.fullmatch(r"[^,\n]+(, [^,\n]+)+", text) else Verdict(False, "not a comma-separated list")


def _upper(constraint: Constraint, response: str) -> Verdict:
    index = next((index for index, letter in enumerate(response) if letter.islower()), None)
    return PASSED if index is None else Verdict(False, "has small letters", (index, index + 1))


def _words(constraint: Constraint, response: str) -> Verdict:
    count = len(response.split())
    limit = constraint["limit"]
    return PASSED if count <= limit else Verdict(False, f"{count} words instead of at most {limit}")


CHECKS: dict[str, Callable[[Constraint, str], Verdict]] = {
    "begin": _begin, "end": _end, "include": _include, "avoid": _avoid, "bullets": _bullets,
    "json": _json, "commas": _commas, "upper": _upper, "max_words": _words,
}  # fmt: skip

_WORDINGS: dict[str, tuple[str, ...]] = {
    "begin": ('Begin your answer with "{phrase}".', 'Start with the words "{phrase}".'),
    "end": ('End your answer with "{phrase}".', 'Finish with the words "{phrase}".'),
    "include": ('Use the word "{word}".', 'Include the word "{word}".'),
    "avoid": ('Do not use the word "{word}".', 'Avoid the word "{word}".'),
    "bullets": ("Format the answer as bullet points.", "Use bullet points."),
    "json": ("Answer as a JSON list.", "Format the answer as JSON."),
    "commas": ("Separate the items by commas.", "Give a comma-separated list."),
    "upper": ("Answer in capital letters.", "Use only capital letters."),
    "max_words": ("Use at most {limit} words.", "No more than {limit} words."),
}


def check_constraint(constraint: Constraint, response: str) -> Verdict:
    """Judge a response by one requirement. Raises KeyError for an unknown type."""
    return CHECKS[constraint["type"]](constraint, response)


def wording(constraint: Constraint, rng: random.Random) -> str:
    """The requirement as a sentence of the instruction."""
    return rng.choice(_WORDINGS[constraint["type"]]).format(**constraint)


def random_frame(rng: random.Random) -> Constraint:
    """A begin or end requirement with a phrase, for any kind of answer."""
    return {"type": rng.choice(("begin", "end")), "phrase": rng.choice(PHRASES)}


def random_word(rng: random.Random, kind: str) -> Constraint:
    """An include or avoid requirement on a random word."""
    return {"type": kind, "word": rng.choice(WORDS)}
