"""The answer inside a response: its last number, option or line, what stands in a box, what it says the answer is."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from ift_serve.checks.verdict import Span

_NUMBER = re.compile(r"(?<!\w)-?\d+(?:\.\d+)?")
_WRITTEN = re.compile(r"(?<![\w.])-?\$?(?:\d{1,3}(?:,\d{3})++|\d++)(?:\.\d++)?")
_BOX = re.compile(r"\\boxed\s*\{")
_SAYS = re.compile(r"\b(?:the\s+)?(?:final\s+)?answer(?:\s+is|\s*[:=])\s*|(?m:^)####\s*", re.IGNORECASE)
_CHOICE = re.compile(r"\(([A-Za-z])\)|(?<!\w)([A-Z])(?!\w)")


@dataclass(frozen=True, slots=True)
class Answer:
    """A part of a response that is its answer, with its place in the response."""

    text: str
    span: Span


def last_number(response: str) -> Answer | None:
    """The last whole or decimal number, written with digits and a point."""
    last = _last(_NUMBER, response)
    return Answer(last.group(), last.span()) if last is not None else None


def last_written_number(response: str) -> Answer | None:
    """The last number as people write it: with a sign, a dollar, commas between thousands, a point."""
    last = _last(_WRITTEN, response)
    return Answer(last.group(), last.span()) if last is not None else None


def boxed(response: str) -> Answer | None:
    r"""What stands in the last ``\boxed{...}`` whose braces are closed, braces inside it included."""
    opened: list[tuple[int, int]] = []
    depth, found = 0, None
    boxes = {box.end(): box for box in _BOX.finditer(response)}
    for brace in re.finditer(r"(?<!\\)[{}]", response):
        if brace.group() == "{":
            depth += 1
            if brace.end() in boxes:
                opened.append((brace.end(), depth))
        else:
            if opened and opened[-1][1] == depth:
                begin, _ = opened.pop()
                if found is None or begin > found[0]:
                    found = (begin, brace.start())
            depth = max(0, depth - 1)
    return None if found is None else Answer(response[slice(*found)], found)


def stated(response: str) -> Answer | None:
    """What follows the last ``the answer is``, ``answer:`` or ``####``, up to the end of the line.

    The full stop of the sentence is not part of it.
    """
    last = _last(_SAYS, response)
    if last is None:
        return None
    line = response[last.end() :].split("\n", 1)[0]
    # A point followed by space ends the sentence; one inside a number does not.
    text = re.split(r"\.(?=\s|\Z)", line, maxsplit=1)[0].rstrip()
    return Answer(text, (last.end(), last.end() + len(text))) if text else None


def final_answer(response: str) -> Answer | None:
    """A box, else what the response says that its answer is, else its last number as people write it.

    None where there is neither; nothing of a response without an answer is taken for one.
    """
    return boxed(response) or stated(response) or last_written_number(response)


def last_line(response: str) -> Answer | None:
    """The last line that is not blank, without the space around it."""
    text = response.rstrip()
    begin = text.rfind("\n") + 1
    line = text[begin:].lstrip()
    return Answer(line, (len(text) - len(line), len(text))) if line else None


def last_mention(response: str, phrase: str) -> Answer | None:
    """The last place where a phrase stands letter for letter and is not a part of a longer word or number."""
    end = len(response)
    while phrase and (begin := response.rfind(phrase, 0, end)) >= 0:
        if not _goes_on(response, begin, begin + len(phrase)):
            return Answer(phrase, (begin, begin + len(phrase)))
        end = begin + len(phrase) - 1
    return None


def _goes_on(text: str, begin: int, end: int) -> bool:
    """Whether the word or number that begins or ends a part of a text goes on outside it."""
    before, after = text[max(0, begin - 2) : begin], text[end : end + 2]
    if text[begin].isalnum() and before and (before[-1].isalnum() or _is_fraction(before[::-1], text[begin])):
        return True
    return text[end - 1].isalnum() and bool(after) and (after[0].isalnum() or _is_fraction(after, text[end - 1]))


def _is_fraction(outside: str, inside: str) -> bool:
    """Whether a point or comma parts digits of one number."""
    return inside.isdigit() and len(outside) == 2 and outside[0] in ".," and outside[1].isdigit()


def choice(response: str, letters: str = "ABCD") -> Answer | None:
    """The letter chosen from ``letters``: of the final answer if that names one, else the last one that is named."""
    stated_part = boxed(response) or stated(response)
    if stated_part is not None and (found := _first_letter(stated_part, letters)):
        return found
    last = None
    for match in _CHOICE.finditer(response):
        letter = match.group(1) or match.group(2)
        if letter.upper() in letters:
            last = Answer(letter.upper(), match.span(match.lastindex or 0))
    return last


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _first_letter(part: Answer, letters: str) -> Answer | None:
    for match in _CHOICE.finditer(part.text):
        letter = match.group(1) or match.group(2)
        if letter.upper() in letters:
            begin = part.span[0] + match.start(match.lastindex or 0)
            return Answer(letter.upper(), (begin, begin + 1))
    return None
