"""Spans of a conversation's parts in its rendering."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile

from ift_serve.text.message import Message, PromptError, Role, Segment

_MARK = re.compile("\ue0a0(\\d+)\ue0a1")
_REASONING_ENDS = "</think>"
"""What stands before it in an earlier answer is left out of a conversation by the templates of reasoning models."""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``end`` of a rendering are one part of the conversation."""

    start: int
    end: int
    segment: Segment


def marked(messages: Sequence[Message]) -> list[tuple[Role, str]]:
    """Roles and contents with a mark in place of each part."""
    numbers = count()
    return [(message.role, "".join(f"\ue0a0{next(numbers)}\ue0a1" for _ in message.parts)) for message in messages]


def locate(text: str, skeleton: str, messages: Sequence[Message]) -> list[Span]:
    """The spans of all parts in the order they stand in the text; one of nothing but white space may be missing.

    ``skeleton`` is the rendering with marks in place of the parts. What stands between the marks is template text;
    walking both side by side finds the parts, stripped or not. A part whose mark the template does not show may
    still stand where the text differs from the skeleton. Each search goes on where the last one ended, so all of
    them together read the text once. Raises LostPartError for a part that the template does not show.
    """
    parts = [(message, part) for message in messages for part in message.parts]
    walk = _Walk(text)
    place, missing = 0, dict(enumerate(parts))
    for mark in _MARK.finditer(skeleton):
        literal, place = skeleton[place : mark.start()], mark.end()
        message, part = parts[int(mark[1])]
        if walk.part(literal, part.text, message.segment(part)) or (
            # What comes before the end of the reasoning is for the template to leave out.
            message.role == "assistant"
            and _REASONING_ENDS in part.text
            and walk.part(literal, part.text.rpartition(_REASONING_ENDS)[2], message.segment(part))
        ):
            missing.pop(int(mark[1]), None)
    walk.end(skeleton[place:])
    for index, (message, part) in missing.items():
        if part.text.strip() and not walk.unexplained(part.text, message.segment(part)):
            raise LostPartError(*_place(messages, index), message.role)
    return sorted(walk.spans, key=lambda span: span.start)


class _Walk:
    """Goes through a rendering, telling parts from template text."""

    def __init__(self, text: str) -> None:
        self.spans: list[Span] = []
        self._text = text
        self._cursor = 0
        self._differing: list[tuple[int, int]] = []
        """Stretches that are not the skeleton's."""

    def part(self, literal: str, part: str, segment: Segment) -> bool:
        """Take template text and the part behind it, wherever that begins; False if it is nowhere."""
        start, used = _after(self._text, literal, part, self._cursor)
        if start < 0:
            return False
        if self._text[self._cursor : start] != literal:
            self._differing.append((self._cursor, start))
        self.spans.append(Span(start, start + used, segment))
        self._cursor = start + used
        return True

    def end(self, literal: str) -> None:
        """Take the template text behind the last part."""
        if self._text[self._cursor :] != literal:
            self._differing.append((self._cursor, len(self._text)))
        self._differing.reverse()

    def unexplained(self, part: str, segment: Segment) -> bool:
        """Find a part where the text differs from the skeleton, behind what was found so before."""
        while self._differing:
            begin, end = self._differing.pop()
            for variant in _variants(part):
                start = self._text.find(variant, begin, end)
                if start >= 0:
                    self.spans.append(Span(start, start + len(variant), segment))
                    self._differing.append((start + len(variant), end))
                    return True
        return False


class LostPartError(PromptError):
    """A part that the template drops or changes."""

    def __init__(self, message: int, part: int, role: str) -> None:
        super().__init__(
            f"prompt.conversation.messages[{message}].parts[{part}]",
            f"is not shown to the model as it is: the chat template drops or changes the text of this {role} message",
        )


def _place(messages: Sequence[Message], index: int) -> tuple[int, int]:
    """Message and part number of a part that is counted over all messages."""
    for number, message in enumerate(messages):
        if index < len(message.parts):
            return number, index
        index -= len(message.parts)
    raise IndexError(index)


def _variants(part: str) -> list[str]:
    """A part as it is, and as a template may have trimmed it."""
    return list(dict.fromkeys(v for v in (part, part.rstrip(), part.lstrip(), part.strip()) if v))


def _after(text: str, literal: str, part: str, cursor: int) -> tuple[int, int]:
    """Start and length of the part behind a piece of template text; searched for where the template differs."""
    start = cursor + len(literal)
    if text.startswith(literal, cursor):
        for variant in _variants(part):
            if text.startswith(variant, start):
                return start, len(variant)
    else:
        same = zip(literal, text[cursor : cursor + len(literal)], strict=False)
        start = cursor + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], same))
    for variant in _variants(part):
        if variant.strip():
            found = text.find(variant, start)
            if found >= 0:
                return found, len(variant)
    return -1, 0


def token_segments(offsets: Sequence[tuple[int, int]], spans: Sequence[Span], length: int) -> bytes:
    """The segment of each token: that of most of its characters, instruction before context before the rest."""
    characters = bytearray(length)
    for span in spans:
        characters[span.start : span.end] = bytes([span.segment]) * (span.end - span.start)
    segments = bytearray(len(offsets))
    order = (Segment.INSTRUCTION, Segment.CONTEXT, Segment.RESPONSE, Segment.TEMPLATE)
    for index, (start, end) in enumerate(offsets):
        piece = characters[start:end]
        if len(piece) == 1 or piece.count(piece[:1]) == len(piece):
            segments[index] = piece[0] if piece else Segment.TEMPLATE
        else:
            segments[index] = max(order, key=piece.count)
    return bytes(segments)
