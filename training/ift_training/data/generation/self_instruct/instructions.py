"""New instructions out of a list that a model goes on with, by the rules of the published code."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from ift_serve.evaluation.serving.outcomes import Answer
from ift_training.data.generation.record import Reason
from ift_training.data.generation.settings import InstructionSettings

_NUMBER = re.compile(r"\n\d+\s?\. ")
"""What an entry begins with; the number of the first entry is the end of the prompt."""
_FIRST_NUMBER = re.compile(r"\s*\d+\s?\.\s")


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry of the list, and why it is rejected before it is compared with the pool, if it is."""

    text: str
    rejection: Reason | None = None


def choose(
    rng: random.Random, human: Sequence[str], machine: Sequence[str], settings: InstructionSettings
) -> list[str]:
    """The ids of the examples that a prompt shows, shuffled: seeds in place of machine instructions not yet there."""
    made = rng.sample(machine, min(settings.machine, len(machine)))
    total = settings.human + settings.machine
    found = [*made, *rng.sample(human, min(total - len(made), len(human)))]
    rng.shuffle(found)
    return found


def numbered(instructions: Sequence[str]) -> str:
    """A list as a prompt shows it: one line an entry, without the colon that it may end with."""
    lines = (re.sub(r"\s+", " ", text).strip().rstrip(":") for text in instructions)
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))


def candidates(answer: Answer, settings: InstructionSettings) -> list[Candidate]:
    """What a model wrote behind the list, entry by entry.

    An answer that was cut at its length is dropped as a whole, or its last entry where ``keep_cut`` says so. Apart
    from that, one thing differs from the published code: it writes all of an entry but its first letter small.
    """
    if answer.is_cut and not settings.keep_cut:
        return [Candidate("", Reason("cut", "the answer was cut off at its length"))]
    entries = _NUMBER.split(answer.text)
    if settings.speaker.style == "chat":
        # A conversation's answer begins a list anew, with a number.
        entries[0] = _FIRST_NUMBER.sub("", entries[0], count=1)
    found = [_candidate(re.sub(r"\s+", " ", entry).strip(), settings) for entry in entries]
    if answer.is_cut:
        found[-1] = Candidate(found[-1].text, Reason("cut", "the answer was cut off within the last entry"))
    return [each for each in found if each.text or each.rejection is not None]


def _candidate(text: str, settings: InstructionSettings) -> Candidate:
    text = text[:1].upper() + text[1:]
    return Candidate(text, _rejection(text, settings) if text else None)


def _rejection(text: str, settings: InstructionSettings) -> Reason | None:
    """The first rule that an instruction breaks."""
    length = len(text.split())
    if not settings.shortest <= length <= settings.longest:
        bound = settings.shortest if length < settings.shortest else settings.longest
        return Reason("length", f"{length} words", length, bound)
    for word in settings.keywords:
        if re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE):
            return Reason("keyword", f"has the word {word!r}")
    for beginning in settings.beginnings:
        if text.lower().startswith(beginning.lower()):
            return Reason("beginning", f"begins with {beginning!r}")
    if text[0] in string.punctuation:
        return Reason("punctuation", f"begins with {text[0]!r}")
    if not text[0].isascii():
        return Reason("not_ascii", f"begins with {text[0]!r}")
    return None
