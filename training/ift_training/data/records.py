"""One line of a data file, checked: instruction with context and output, or a conversation."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ift_serve.text.prompt import Message, Part, Role
from ift_training.data.checks import Check, parse_checks
from ift_training.data.procedural import Example

_SINGLE = {"instruction", "context", "output", "system", "checks"}
_CONVERSATION = {"messages", "checks"}
_ROLES: tuple[Role, ...] = ("system", "user", "assistant")


class RecordError(ValueError):
    """A record that cannot be used; ``field`` names what is wrong, ``message`` says what to do."""

    def __init__(self, field: str, message: str) -> None:
        self.field, self.message = _printable(field), _printable(message)
        super().__init__(f"{self.field}: {self.message}")

    @property
    def kind(self) -> str:
        """What to count it by: the same for records with the same mistake."""
        return f"{self.field} {self.message.split(':')[0].split(';')[0]}"


def _printable(text: str) -> str:
    """JSON may hold half a surrogate pair, which no terminal and no file takes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class Record:
    """A prompt and the answer to learn.

    prompt: messages that end with the user's. response: what the assistant says to them. example: the procedural
    example that it came from. checks: further requirements that a response can be judged by.
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
        return cls((_request(example.instruction, example.context),), example.output, example)


def _request(instruction: str, context: str) -> Message:
    """As :meth:`ift_serve.text.prompt.PromptRenderer.instruction` writes it."""
    parts = [Part(instruction)]
    if context:
        parts += [Part("\n\n"), Part(context, is_context=True)]
    return Message("user", tuple(parts))


def parse_line(line: bytes | str, *, rename: Mapping[str, str] | None = None, ignore: Sequence[str] = ()) -> Record:
    """The record of one JSON line. Raises RecordError.

    ``rename`` maps names in the file to the ones expected here; ``ignore`` names fields to pass over.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError("line", f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RecordError("line", f"is a JSON {type(found).__name__}; write an object with instruction and output")
    return parse_record(found, rename=rename, ignore=ignore)


def parse_record(
    found: Mapping[str, Any], *, rename: Mapping[str, str] | None = None, ignore: Sequence[str] = ()
) -> Record:
    """The record of a JSON object. Raises RecordError."""
    fields: dict[str, Any] = {}
    for name, value in found.items():
        name = (rename or {}).get(name, name)
        if name in fields:
            raise RecordError(name, "is given twice; take one of them out of `rename`")
        if name not in ignore:
            fields[name] = value
    kind = _CONVERSATION if "messages" in fields else _SINGLE
    if unknown := sorted(set(fields) - kind):
        raise RecordError(
            unknown[0],
            f"is not one of {', '.join(sorted(kind))}; map it with the source's `rename` or name it in its `ignore`",
        )
    try:
        checks = parse_checks(fields.get("checks", []))
    except ValueError as error:
        raise RecordError(*str(error).split(": ", 1)) from error
    prompt, response = _conversation(fields["messages"]) if kind is _CONVERSATION else _single(fields)
    return Record(prompt, response, checks=checks)


def _text(value: Any, field: str, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise RecordError(field, f"is {_type(value)}; write a string")
    if not value.strip() and not may_be_empty:
        raise RecordError(field, "is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError(field, f"is not valid Unicode at character {error.start}") from error
    return value


def _type(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "a boolean", type(None): "null", int: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def _single(fields: Mapping[str, Any]) -> tuple[tuple[Message, ...], str]:
    for required in ("instruction", "output"):
        if required not in fields:
            raise RecordError(required, "is missing")
    system, context = (
        "" if fields.get(name) is None else _text(fields[name], name, may_be_empty=True)
        for name in ("system", "context")
    )
    request = _request(_text(fields["instruction"], "instruction"), context)
    before = (Message("system", (Part(system),)),) if system.strip() else ()
    return (*before, request), _text(fields["output"], "output")


def _conversation(messages: Any) -> tuple[tuple[Message, ...], str]:
    if not isinstance(messages, list) or not messages:
        raise RecordError("messages", "is not a list of messages" if messages != [] else "is empty")
    parsed = [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]
    _check_order(parsed)
    return tuple(parsed[:-1]), parsed[-1].content


def _check_order(parsed: Sequence[Message]) -> None:
    """A system message perhaps, then user and assistant in turn, the assistant last."""
    if parsed[0].role == "assistant":
        raise RecordError("messages[0].role", "is assistant; a user message must come first")
    for index, (earlier, later) in enumerate(itertools.pairwise(parsed)):
        if later.role == "system":
            raise RecordError(f"messages[{index + 1}].role", "is system; only the first message may be")
        if earlier.role == later.role:
            raise RecordError(f"messages[{index + 1}].role", f"is {later.role} twice in a row; join the two messages")
        if earlier.role == "system" and later.role == "assistant":
            raise RecordError(f"messages[{index + 1}].role", "is assistant; a user message must come first")
    if parsed[-1].role != "assistant":
        raise RecordError(f"messages[{len(parsed) - 1}].role", "is not assistant; end with the answer to learn")


def _message(message: Any, field: str) -> Message:
    if not isinstance(message, dict):
        raise RecordError(field, f"is {_type(message)}; write an object with role and content")
    if unknown := sorted(set(message) - {"role", "content"}):
        raise RecordError(f"{field}.{unknown[0]}", "is not known; a message has role and content")
    role = next((r for r in _ROLES if r == message.get("role")), None)
    if role is None:
        raise RecordError(f"{field}.role", f"is {message.get('role')!r}; choose one of {', '.join(_ROLES)}")
    parts = _parts(message.get("content"), f"{field}.content")
    if role == "assistant" and any(part.is_context for part in parts):
        raise RecordError(f"{field}.content", "is marked as context; only what the assistant is given can be")
    return Message(role, parts)


def _parts(content: Any, field: str) -> tuple[Part, ...]:
    if not isinstance(content, list):
        return (Part(_text(content, field)),)
    if not content:
        raise RecordError(field, "is empty")
    parts = []
    for index, part in enumerate(content):
        where = f"{field}[{index}]"
        if not isinstance(part, dict) or not set(part) <= {"text", "context"}:
            raise RecordError(where, 'is not an object like {"text": "...", "context": true}')
        if not isinstance(part.get("context", False), bool):
            raise RecordError(f"{where}.context", "is not true or false")
        parts.append(Part(_text(part.get("text"), f"{where}.text"), part.get("context", False)))
    return tuple(parts)
