"""A record of a data file, checked: instruction with context and output, or a conversation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ift_serve.checks import Check, parse_checks
from ift_serve.text.prompt import Message, Part
from ift_training.data.layouts import named_fields
from ift_training.data.messages import check_order, parse_messages, text_of
from ift_training.data.procedural import Example
from ift_training.data.record_error import Problem, RecordError

__all__ = ["Record", "RecordError", "parse_json", "parse_line", "parse_record"]


@dataclass(frozen=True, slots=True)
class Record:
    """A prompt and the answer to learn.

    prompt: messages that end with the user's. response: what the assistant says to them. example: the procedural
    example that it came from. checks: what any response to the prompt can be judged by.
    """

    prompt: tuple[Message, ...]
    response: str
    example: Example | None = None
    checks: tuple[Check, ...] = ()

    @property
    def key(self) -> bytes:
        """Eight bytes of a hash of the prompt: records with one key ask the same thing."""
        digest = hashlib.sha256()
        for message in self.prompt:
            digest.update(f"{message.role}\0{message.content}\0".encode("utf-8", "surrogatepass"))
        return digest.digest()[:8]

    @classmethod
    def of_example(cls, example: Example) -> Record:
        """The record of a procedural example."""
        return cls((_request(example.instruction, example.context),), example.output, example, example.checks)


def _request(instruction: str, context: str) -> Message:
    """As :meth:`ift_serve.text.prompt.PromptRenderer.instruction` writes it."""
    parts = [Part(instruction)]
    if context:
        parts += [Part("\n\n"), Part(context, is_context=True)]
    return Message("user", tuple(parts))


def parse_json(line: bytes | str) -> Mapping[str, Any]:
    """The object of one JSON text. Raises RecordError."""
    try:
        found = json.loads(line if isinstance(line, str) else line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RecordError(
            "line", f"is not UTF-8: byte {error.start} is wrong; save the file as UTF-8", Problem.UNREADABLE
        ) from error
    except (ValueError, RecursionError) as error:
        raise RecordError("line", f"is not JSON: {error}", Problem.UNREADABLE) from error
    if not isinstance(found, dict):
        raise RecordError(
            "line",
            f"is a JSON {type(found).__name__}; write an object with instruction and output",
            Problem.NOT_A_RECORD,
        )
    return found


def parse_line(line: bytes | str, *, rename: Mapping[str, str] | None = None, ignore: Sequence[str] = ()) -> Record:
    """The record of one JSON line; see :func:`parse_record`. Raises RecordError."""
    return parse_record(parse_json(line), rename=rename, ignore=ignore)


def parse_record(
    found: Mapping[str, Any], *, rename: Mapping[str, str] | None = None, ignore: Sequence[str] = ()
) -> Record:
    """The record of a JSON object in any of the layouts of :mod:`ift_training.data.layouts`. Raises RecordError.

    ``rename`` maps names in the file to the ones expected here; ``ignore`` names fields to pass over.
    """
    fields = named_fields(found, rename or {}, ignore)
    try:
        checks = parse_checks(fields.get("checks", []))
    except ValueError as error:
        field, message = str(error).split(": ", 1)
        raise RecordError(field, message, Problem.WRONG_CHECK) from error
    prompt, response = _conversation(fields) if "messages" in fields else _single(fields)
    return Record(prompt, response, checks=checks)


def _single(fields: Mapping[str, Any]) -> tuple[tuple[Message, ...], str]:
    for required in ("instruction", "output"):
        if required not in fields:
            raise RecordError(required, "is missing", Problem.MISSING)
    context = "" if fields.get("context") is None else text_of(fields["context"], "context", may_be_empty=True)
    request = _request(text_of(fields["instruction"], "instruction"), context)
    return (*_system(fields), request), text_of(fields["output"], "output")


def _system(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    text = "" if fields.get("system") is None else text_of(fields["system"], "system", may_be_empty=True)
    return (Message("system", (Part(text),)),) if text.strip() else ()


def _conversation(fields: Mapping[str, Any]) -> tuple[tuple[Message, ...], str]:
    parsed = parse_messages(fields["messages"], "messages")
    if system := _system(fields):
        if parsed[0].role == "system":
            raise RecordError(
                "system",
                "is given, and the first message is a system message too; keep one of them",
                Problem.FIELD_TWICE,
            )
        parsed = [*system, *parsed]
    check_order(parsed)
    return tuple(parsed[:-1]), parsed[-1].content
