"""Records as lines of our own files."""

from __future__ import annotations

from typing import Any

from ift_serve.text.prompt import Message, Part
from ift_training.data.records import Record

_GAP = Part("\n\n")


def line_of(record: Record) -> dict[str, Any]:
    """Plain values that :func:`ift_training.data.records.parse_record` reads as the same record.

    A single request is instruction, context and output, with a system message beside them; all else is messages.
    """
    values = _single(record) or {"messages": [*map(_message, record.prompt), _answer(record.response)]}
    if record.checks:
        values["checks"] = [check.model_dump(mode="json") for check in record.checks]
    return values


def _single(record: Record) -> dict[str, Any] | None:
    """The fields of a single request; None for a conversation, and for parts that these fields cannot say."""
    *before, request = record.prompt
    systems = [message.parts for message in before if message.role == "system"]
    if len(systems) < len(before) or any(len(parts) != 1 for parts in systems):
        return None
    match request.parts:
        case (Part(is_context=False) as instruction,):
            values = {"instruction": instruction.text, "output": record.response}
        case (Part(is_context=False) as instruction, gap, Part(is_context=True) as context) if gap == _GAP:
            values = {"instruction": instruction.text, "context": context.text, "output": record.response}
        case _:
            return None
    return {"system": systems[0][0].text, **values} if systems else values


def _message(message: Message) -> dict[str, Any]:
    if len(message.parts) == 1 and not message.parts[0].is_context:
        return {"role": message.role, "content": message.content}
    parts = [{"type": "text", "text": p.text} | ({"context": True} if p.is_context else {}) for p in message.parts]
    return {"role": message.role, "content": parts}


def _answer(response: str) -> dict[str, Any]:
    return {"role": "assistant", "content": response}
