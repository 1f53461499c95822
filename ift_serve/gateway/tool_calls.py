"""Calls of functions, read out of what a model writes in the form that its chat template shows it."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, Protocol

CallFormat = Literal["hermes", "llama", "mistral"]

_BEGIN, _END = "<tool_call>", "</tool_call>"
_PYTHON_TAG, _TOOL_CALLS = "<|python_tag|>", "[TOOL_CALLS]"
_LLAMA_TOLD = re.compile(r'\{\\?"name\\?": function name, \\?"parameters\\?":')


def call_format(template: str) -> CallFormat | None:
    """The form in which a chat template has calls written; None: none that is known, and calls stay text.

    ``hermes``: ``<tool_call>{"name", "arguments"}</tool_call>``, of Hermes and Qwen. ``llama``: the whole answer is
    ``{"name", "parameters"}``, perhaps behind ``<|python_tag|>``, several divided by semicolons. ``mistral``:
    ``[TOOL_CALLS]`` and a list of ``{"name", "arguments"}``.
    """
    if _BEGIN in template:
        return "hermes"
    if _TOOL_CALLS in template:
        return "mistral"
    return "llama" if _PYTHON_TAG in template or _LLAMA_TOLD.search(template) else None


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """``arguments``: a JSON object, as text."""

    id: str
    name: str
    arguments: str

    def told(self) -> dict[str, Any]:
        """As OpenAI's messages have it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(slots=True)
class Found:
    """What became clear with a piece of text."""

    text: str = ""
    calls: list[FunctionCall] = field(default_factory=list)


class CallReader(Protocol):
    """Takes an answer piece by piece. What may yet be a call is held back; what turns out to be none is text."""

    def add(self, text: str, *, last: bool) -> Found:
        """What is clear now; all of it, with the last piece."""
        ...


def call_reader(form: CallFormat, functions: Collection[str]) -> CallReader:
    """A reader of calls of these functions; a call of any other is text."""
    return _BlockReader(functions) if form == "hermes" else _WholeReader(form, functions)


class _BlockReader:
    """Of calls between two markers, with text around them."""

    def __init__(self, functions: Collection[str]) -> None:
        self._functions = functions
        self._held = ""
        self._has_calls = False

    def add(self, text: str, *, last: bool) -> Found:
        """What is clear now."""
        self._held += text
        found = Found()
        while (begin := self._held.find(_BEGIN)) >= 0:
            end = self._held.find(_END, begin)
            if end < 0:
                break
            call = _read(self._held[begin + len(_BEGIN) : end], "arguments", self._functions, _long_id)
            end += len(_END)
            if call is None:
                found.text += self._held[:end]
            else:
                found.text += self._held[:begin].rstrip()
                found.calls.append(call)
                self._has_calls = True
            self._held = self._held[end:]
        clear = len(self._held) if last else self._clear(begin)
        found.text += self._held[:clear]
        self._held = self._held[clear:]
        if last and self._has_calls:
            found.text = found.text.rstrip()
        return found

    def _clear(self, begin: int) -> int:
        """How much of what is held is text whatever comes: not the space before a call, nor what may begin one."""
        if begin >= 0:
            return len(self._held[:begin].rstrip())
        for size in range(min(len(_BEGIN) - 1, len(self._held)), 0, -1):
            if self._held.endswith(_BEGIN[:size]):
                return len(self._held[:-size].rstrip())
        return len(self._held.rstrip())


class _WholeReader:
    """Of calls that are all of the answer, or all that follows a marker.

    The markers are control tokens, which servers leave out of texts: an answer may begin with the JSON itself.
    """

    def __init__(self, form: CallFormat, functions: Collection[str]) -> None:
        self._functions = functions
        self._is_list = form == "mistral"
        self._marker = _TOOL_CALLS if self._is_list else _PYTHON_TAG
        self._begins = (self._marker, "[" if self._is_list else "{")
        self._held = ""
        self._is_text = False

    def add(self, text: str, *, last: bool) -> Found:
        """What is clear now."""
        if self._is_text:
            return Found(text)
        self._held += text
        begun = self._held.lstrip()
        if not last and any(begun.startswith(b) or b.startswith(begun) for b in self._begins):
            return Found()
        self._is_text = True
        calls = self._calls(begun.removeprefix(self._marker).strip()) if last else []
        return Found(calls=calls) if calls else Found(self._held)

    def _calls(self, text: str) -> list[FunctionCall]:
        """All of them, or none."""
        if self._is_list:
            return _all(_Values(text).listed(), "arguments", self._functions, _short_id)
        return _all(_Values(text).divided(), "parameters", self._functions, _long_id)


class _Values:
    """JSON values in a text; none where anything in it is broken."""

    def __init__(self, text: str) -> None:
        self._text = text

    def listed(self) -> list[Any]:
        """Of one list."""
        found = _parsed(self._text)
        return found if isinstance(found, list) else []

    def divided(self) -> list[Any]:
        """Divided by semicolons."""
        found: list[Any] = []
        place = 0
        while True:
            try:
                value, place = _DECODER.raw_decode(self._text, place)
            except (ValueError, RecursionError):
                return []
            found.append(value)
            rest = self._text[place:].lstrip()
            if not rest:
                return found
            if not rest.startswith(";"):
                return []
            place = len(self._text) - len(rest[1:].lstrip())
            if place == len(self._text):
                return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _parsed(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _all(values: list[Any], key: str, functions: Collection[str], new_id: Callable[[], str]) -> list[FunctionCall]:
    calls = [_call(value, key, functions, new_id) for value in values]
    return [] if None in calls else [call for call in calls if call is not None]


def _read(text: str, key: str, functions: Collection[str], new_id: Callable[[], str]) -> FunctionCall | None:
    return _call(_parsed(text.strip()), key, functions, new_id)


def _call(value: Any, key: str, functions: Collection[str], new_id: Callable[[], str]) -> FunctionCall | None:
    if not isinstance(value, dict) or not value.keys() <= {"name", "type", "id", key}:
        return None
    name, arguments = value.get("name"), value.get(key, {})
    if not isinstance(name, str) or name not in functions or not isinstance(arguments, dict):
        return None
    return FunctionCall(new_id(), name, _written(arguments))


def _written(arguments: dict[str, Any]) -> str:
    written = json.dumps(arguments, ensure_ascii=False)
    try:
        written.encode()
    except UnicodeEncodeError:  # half a character, which is no text of UTF-8, stays escaped
        return json.dumps(arguments)
    return written


def _long_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _short_id() -> str:
    """Mistral's templates take ids of nine letters and digits only."""
    return secrets.token_hex(5)[:9]
