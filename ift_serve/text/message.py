"""Messages, their parts, and the segments that their tokens get."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal


class Segment(IntEnum):
    """What part a prompt token plays."""

    TEMPLATE = 0
    INSTRUCTION = 1
    CONTEXT = 2
    RESPONSE = 3


Role = Literal["system", "user", "assistant", "tool"]


class PromptError(ValueError):
    """A prompt that cannot be rendered; ``field`` is the path of the field at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a message; context is material, anything else is instruction."""

    text: str
    is_context: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; its parts are joined without anything between.

    ``tool_calls``: functions that the assistant called; ``tool_call_id`` and ``name``: which of them a tool's message
    answers.
    """

    role: Role
    parts: tuple[Part, ...]
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_call_id: str = ""
    name: str = ""

    @property
    def content(self) -> str:
        """The text of all parts."""
        return "".join(part.text for part in self.parts)

    def segment(self, part: Part) -> Segment:
        """The segment of a part's tokens."""
        if part.is_context or self.role == "tool":
            return Segment.CONTEXT
        return Segment.RESPONSE if self.role == "assistant" else Segment.INSTRUCTION
