"""The messages of a conversation, as chat data sets write them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ift_serve.text.prompt import Message, Part, Role
from ift_training.data.record_error import Problem, RecordError

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}
"""Names of roles in files: OpenAI's, and ShareGPT's."""
_KEYS = {"role": "role", "from": "role", "content": "content", "value": "content"}


def text_of(value: Any, field: str, *, may_be_empty: bool = False) -> str:
    """The text of a field. Raises RecordError."""
    if not isinstance(value, str):
        raise RecordError(field, f"is {_type(value)}; write a string", Problem.WRONG_TYPE)
    if not value.strip() and not may_be_empty:
        raise RecordError(field, "is empty", Problem.EMPTY)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError(field, f"is not valid Unicode at character {error.start}", Problem.NOT_UNICODE) from error
    return value


def _type(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "a boolean", type(None): "null", int: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def parse_messages(found: Any, field: str) -> list[Message]:
    """A list of ``{"role", "content"}`` or ``{"from", "value"}``; content may be parts. Raises RecordError."""
    if not isinstance(found, list) or not found:
        empty = found == []
        raise RecordError(
            field, "is empty" if empty else "is not a list of messages", Problem.EMPTY if empty else Problem.WRONG_TYPE
        )
    return [_message(message, f"{field}[{index}]") for index, message in enumerate(found)]


def check_order(parsed: Sequence[Message]) -> None:
    """A system message perhaps, then user and assistant in turn, the assistant last. Raises RecordError."""
    if parsed[0].role == "assistant":
        raise RecordError("messages[0].role", "is assistant; a user message must come first", Problem.WRONG_ORDER)
    for index, (earlier, later) in enumerate(itertools.pairwise(parsed)):
        if later.role == "system":
            raise RecordError(
                f"messages[{index + 1}].role", "is system; only the first message may be", Problem.WRONG_ORDER
            )
        if earlier.role == later.role:
            raise RecordError(
                f"messages[{index + 1}].role",
                f"is {later.role} twice in a row; join the two messages",
                Problem.WRONG_ORDER,
            )
        if earlier.role == "system" and later.role == "assistant":
            raise RecordError(
                f"messages[{index + 1}].role", "is assistant; a user message must come first", Problem.WRONG_ORDER
            )
    if parsed[-1].role != "assistant":
        raise RecordError(
            f"messages[{len(parsed) - 1}].role", "is not assistant; end with the answer to learn", Problem.WRONG_ORDER
        )


def _message(message: Any, field: str) -> Message:
    if not isinstance(message, dict):
        raise RecordError(field, f"is {_type(message)}; write an object with role and content", Problem.WRONG_TYPE)
    fields = _known_keys(message, field)
    named = fields.get("role")
    role = _ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        raise RecordError(f"{field}.role", f"is {named!r:.80}; choose one of {', '.join(_ROLES)}", Problem.UNKNOWN_ROLE)
    parts = _parts(fields.get("content"), f"{field}.content")
    if role == "assistant" and any(part.is_context for part in parts):
        raise RecordError(
            f"{field}.content", "is marked as context; only what the assistant is given can be", Problem.UNKNOWN_FIELD
        )
    return Message(role, parts)


def _known_keys(message: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Role and content, whatever they are called; what is null is as good as left out."""
    fields: dict[str, Any] = {}
    for name, value in message.items():
        known = _KEYS.get(name)
        if known is None and value is not None:
            raise RecordError(f"{field}.{name}", "is not known; a message has role and content", Problem.UNKNOWN_FIELD)
        if known is not None and known in fields:
            raise RecordError(f"{field}.{name}", f"is a second {known}; keep one of them", Problem.FIELD_TWICE)
        if known is not None:
            fields[known] = value
    return fields


def _parts(content: Any, field: str) -> tuple[Part, ...]:
    if not isinstance(content, list):
        return (Part(text_of(content, field)),)
    if not content:
        raise RecordError(field, "is empty", Problem.EMPTY)
    # White space of its own stands between an instruction and its context.
    parts = tuple(_part(part, f"{field}[{index}]") for index, part in enumerate(content))
    if not "".join(part.text for part in parts).strip():
        raise RecordError(field, "is empty", Problem.EMPTY)
    return parts


def _part(part: Any, where: str) -> Part:
    """``{"type": "text", "text": ...}``, the type optional; ``"context": true`` marks what an instruction is about."""
    if not isinstance(part, dict):
        raise RecordError(where, 'is not an object like {"type": "text", "text": "..."}', Problem.WRONG_TYPE)
    if (kind := part.get("type", "text")) != "text":
        raise RecordError(
            f"{where}.type", f"is {kind!r:.80}; only parts of type 'text' are trained on", Problem.WRONG_TYPE
        )
    if unknown := sorted(name for name, v in part.items() if name not in ("type", "text", "context") and v is not None):
        raise RecordError(
            f"{where}.{unknown[0]}", "is not known; a part has type, text and context", Problem.UNKNOWN_FIELD
        )
    if not isinstance(part.get("context", False), bool):
        raise RecordError(f"{where}.context", "is not true or false", Problem.WRONG_TYPE)
    text = text_of(part.get("text"), f"{where}.text", may_be_empty=True)
    if not text:
        raise RecordError(f"{where}.text", "is empty", Problem.EMPTY)
    return Part(text, part.get("context", False))
