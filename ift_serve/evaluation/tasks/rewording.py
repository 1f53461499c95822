"""Other words for the same request: cousins of a prompt, always the same ones, that the same checks judge."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from typing import Any

_FRAMES = (
    "{}",
    "Here is what I need from you.\n\n{}",
    "{}\n\nPlease keep to every part of this request.",
    "I have a task for you:\n{}",
    "Please help me with the following.\n\n{}\n\nThank you!",
    "Read this request with care, then answer it.\n\n{}",
    "My request:\n\n{}",
    "{}\n\nMake sure that all of this is followed.",
    "Hello! {}",
    "Could you do this for me?\n\n{}",
)
"""What stands around a request; none asks for anything of its own."""
_WORDINGS = (
    ("your entire response", "your whole response", "the whole of your response"),
    ("your response should", "your answer should", "your reply should"),
    ("your response must", "your answer must", "your reply must"),
    ("in your response", "in your answer", "in your reply"),
    ("your answer should", "your response should", "your reply should"),
    ("your answer must", "your response must", "your reply must"),
    ("at least", "no fewer than", "a minimum of"),
    ("less than", "fewer than"),
    ("exactly", "precisely"),
    ("make sure", "be sure"),
    ("do not use", "don't use", "avoid using"),
    ("do not include", "don't include", "leave out"),
    ("do not", "don't"),
    ("write a", "compose a", "draft a"),
    ("create a", "come up with a", "produce a"),
    ("give me", "provide", "offer me"),
    ("explain", "describe"),
    ("finish your response with", "end your response with", "close your response with"),
    ("in all lowercase", "entirely in lowercase"),
    ("should contain", "must contain"),
    ("should be", "must be"),
)
"""Phrases that mean the same in a request: the first of a row is looked for, one of the others takes its place."""
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|'[^'\n]{2,}'(?!\w)|`[^`]*`|\[[^\]]*\]|<<[^>]*>>|\{[^}]*\}")


def cousins(prompt: str, arguments: Iterable[Any], count: int, key: str) -> list[str]:
    """``count`` wordings of a request, all different, the first being the request itself; the same for the same key.

    ``arguments``: what its checks look for. Whatever is quoted, and every text of the arguments, stays letter for
    letter. Raises ValueError where there are not so many wordings.
    """
    kept = sorted(set(_texts(list(arguments))), key=len, reverse=True)
    draw = random.Random(f"cousins/{key}")
    frames = list(_FRAMES[1:])
    draw.shuffle(frames)
    found = [prompt]
    for frame in frames:
        if len(found) >= count:
            break
        body = _reworded(prompt, kept, draw)
        found.append(frame.replace("{}", body))
    if len(found) < count:
        raise ValueError(f"{count} wordings: there are {len(_FRAMES)} at most")
    return found


MOST = len(_FRAMES)
"""Wordings of a request, itself included."""


def _reworded(prompt: str, kept: list[str], draw: random.Random) -> str:
    """The request with other phrases; spans that must stay are kept."""
    fixed = [match.span() for match in _QUOTED.finditer(prompt)]
    folded = prompt.lower()
    for text in kept:
        place = folded.find(text.lower())
        while place >= 0:
            fixed.append((place, place + len(text)))
            place = folded.find(text.lower(), place + 1)
    for phrase, *others in _WORDINGS:
        places = re.finditer(rf"\b{re.escape(phrase)}\b", prompt, re.IGNORECASE)
        free = (m for m in places if not any(m.start() < end and begin < m.end() for begin, end in fixed))
        if (match := next(free, None)) is None:
            continue
        other = draw.choice(others)
        other = other[0].upper() + other[1:] if match.group()[0].isupper() else other
        prompt = prompt[: match.start()] + other + prompt[match.end() :]
        moved = len(other) - len(match.group())
        fixed = [(b + moved, e + moved) if b >= match.end() else (b, e) for b, e in fixed]
        fixed.append((match.start(), match.start() + len(other)))
    return prompt


def _texts(values: Any) -> Iterable[str]:
    """Every text within plain values that a request could quote."""
    if isinstance(values, str):
        if values.strip():
            yield values.strip()
    elif isinstance(values, Mapping):
        for name, value in values.items():
            # A relation is asked for in words of its own.
            if not name.endswith("relation"):
                yield from _texts(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value)
