"""Settings of reasoning to messages, and messages to what the caller reads."""

from __future__ import annotations

import dataclasses
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from ift_serve.client import reasoning
from ift_serve.client.texts import utf8
from ift_serve.v1 import inference_pb2
from ift_serve.v1 import reasoning_pb2 as pb

_KINDS: dict[str, type[reasoning.Reasoning]] = {
    "none": reasoning.NoReasoning,
    "trace": reasoning.Trace,
    "branch": reasoning.Branch,
    "vote": reasoning.Vote,
    "best_of": reasoning.BestOf,
    "auto": reasoning.Auto,
    "registered": reasoning.Registered,
}
_EXITS: dict[str, type[reasoning.EntropyExit] | type[reasoning.ConfidenceExit]] = {
    "entropy": reasoning.EntropyExit,
    "confidence": reasoning.ConfidenceExit,
}
_PARTS: dict[str, type[Any]] = {
    "Trace": reasoning.Trace,
    "Branch": reasoning.Branch,
    "AnswerSpan": reasoning.AnswerSpan,
    "LowConfidence": reasoning.LowConfidence,
}
"""What stands inside of other settings, by the name of its message."""


def reasoning_message(settings: reasoning.Reasoning | None, max_total_tokens: int | None) -> pb.Reasoning | None:
    """None where nothing is asked for. Raises TypeError, ValueError and InvalidRequestError for what cannot be sent."""
    if settings is None and max_total_tokens is None:
        return None
    message = pb.Reasoning(max_total_tokens=max_total_tokens)
    if settings is None:
        return message
    kind = next((name for name, known in _KINDS.items() if type(settings) is known), None)
    if kind is None:
        raise TypeError(f"reasoning: {settings!r} is none of {', '.join(k.__name__ for k in _KINDS.values())}")
    one = getattr(message, kind)
    one.SetInParent()
    fill(one, settings, f"reasoning.{kind}")
    return message


def fill(message: Message, settings: Any, path: str) -> None:
    """Set every field of a message that the settings do not leave to the server. Raises ValueError."""
    for field in dataclasses.fields(settings):
        value, where = getattr(settings, field.name), f"{path}.{field.name}"
        if value is None or field.name not in message.DESCRIPTOR.fields_by_name:
            continue
        if isinstance(value, reasoning.EntropyExit | reasoning.ConfidenceExit):
            _fill_exit(message.early_exit, value, where)  # type: ignore[attr-defined]
        elif dataclasses.is_dataclass(value):
            part = getattr(message, field.name)
            part.SetInParent()
            fill(part, value, where)
        elif isinstance(value, dict):
            _fill_struct(getattr(message, field.name), value, where)
        else:
            _set(message, field.name, value, where)


def _fill_exit(message: pb.EarlyExit, rule: reasoning.EntropyExit | reasoning.ConfidenceExit, path: str) -> None:
    """The prompt is common to the rules, so it stands beside them in the message."""
    kind = next(name for name, known in _EXITS.items() if isinstance(rule, known))
    one = getattr(message, kind)
    one.SetInParent()
    message.prompt = utf8(f"{path}.prompt", rule.prompt)
    fill(one, rule, f"{path}.{kind}")


def _set(message: Message, name: str, value: Any, path: str) -> None:
    enum = message.DESCRIPTOR.fields_by_name[name].enum_type
    if enum is not None:
        value = _enum_value(enum, value, path)
    elif isinstance(value, str):
        value = utf8(path, value)
    try:
        setattr(message, name, value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _fill_struct(message: Any, value: dict[str, Any], path: str) -> None:
    try:
        json_format.ParseDict(value, message)
        message.SetInParent()
    except (json_format.ParseError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _enum_names(enum: Any) -> dict[str, int]:
    """Short names: what the values' names have in common is left out, and so is the one for unspecified."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}


def _enum_value(enum: Any, name: str, path: str) -> int:
    names = _enum_names(enum)
    if name not in names:
        raise ValueError(f"{path}: {name!r} is not one of {', '.join(names)}")
    return names[name]


def applied(message: pb.Reasoning) -> reasoning.AppliedReasoning:
    """How an answer was reasoned about."""
    kind = message.WhichOneof("kind") or "none"
    return reasoning.AppliedReasoning(read(getattr(message, kind), _KINDS[kind]), message.max_total_tokens)


def read(message: Message, kind: type[Any]) -> Any:
    """Settings of a kind from the message that has the same fields."""
    known = message.DESCRIPTOR.fields_by_name
    return kind(
        **{field.name: _value(message, field.name) for field in dataclasses.fields(kind) if field.name in known}
    )


def _read_exit(message: pb.EarlyExit) -> reasoning.EntropyExit | reasoning.ConfidenceExit | None:
    kind = message.WhichOneof("rule")
    if kind is None:
        return None
    rule: Any = read(getattr(message, kind), _EXITS[kind])
    told: reasoning.EntropyExit | reasoning.ConfidenceExit = dataclasses.replace(rule, prompt=message.prompt)
    return told


def _value(message: Message, name: str) -> Any:
    field = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    if field.enum_type is not None:
        return next((short for short, number in _enum_names(field.enum_type).items() if number == value), None)
    if field.has_presence and not message.HasField(name):
        return {} if name == "settings" else None
    if field.message_type is None:
        return value
    if name == "early_exit":
        return _read_exit(value)
    if name == "settings":
        return json_format.MessageToDict(value)
    return read(value, _PARTS[field.message_type.name])


def conclusion(message: inference_pb2.Conclusion, reasons: dict[int, reasoning.FinishReason]) -> reasoning.Conclusion:
    """What was decided; ``reasons``: names of finish reasons."""
    branches = tuple(
        reasoning.BranchSummary(b.answer, b.confidence, b.votes, b.tokens, reasons[b.finish_reason], b.chosen)
        for b in message.branches
    )
    return reasoning.Conclusion(message.mode, message.answer, message.confidence, branches)
