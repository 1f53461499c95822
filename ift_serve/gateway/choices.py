"""Choices of chat completions and of completions, piece by piece and whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from ift_serve.client import Delta, Token
from ift_serve.gateway import details
from ift_serve.gateway.asked import Asked
from ift_serve.gateway.log_probs import AnswerTokens, chat_entry, detail
from ift_serve.gateway.tool_calls import FunctionCall, call_reader

_A_PIECE, _AN_ENTRY = 256, 128
"""Bytes of Python's own for a piece of text, and for an entry of a list."""


def _size(encoded: msgspec.Raw) -> int:
    return _AN_ENTRY + len(encoded)


class Choice(Protocol):
    """One answer as it grows. ``index``: its number among all of the response."""

    index: int

    def piece(self, delta: Delta) -> dict[str, Any]:
        """What a chunk says of it."""
        ...

    def add(self, delta: Delta) -> int:
        """Keep what is new, for the whole; returns the bytes that it takes, about."""
        ...

    def whole(self) -> dict[str, Any]:
        """All of it."""
        ...


class _Grown:
    """What both kinds keep of an answer."""

    def __init__(self, index: int, asked: Asked, end_ids: Sequence[int]) -> None:
        self.index = index
        self._asked = asked
        self._end_ids = frozenset(end_ids)
        self._tokens = AnswerTokens(end_ids)
        self._alternatives = int(asked.options.get("top_alternatives", 0))
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._details: list[msgspec.Raw] = []
        self._last: Delta | None = None

    def _answer_tokens(self, delta: Delta) -> list[Token]:
        return self._tokens.add(delta.text, delta.tokens, last=bool(delta.finish_reason))

    def _told(self, delta: Delta, listed: list[msgspec.Raw]) -> dict[str, Any]:
        """Of our own: every token, if asked for, and the end."""
        told: dict[str, Any] = {"tokens": listed} if self._asked.token_details and listed else {}
        if delta.finish_reason:
            told |= details.ending(delta)
        return {"ift": told} if told else {}

    def _detailed(self, delta: Delta) -> list[msgspec.Raw]:
        if not self._asked.token_details:
            return []
        return [detail(token, self._end_ids) for token in delta.tokens]

    def _keep(self, delta: Delta) -> int:
        self._text.append(delta.text)
        self._reasoning.append(delta.reasoning)
        listed = self._detailed(delta)
        self._details += listed
        if delta.finish_reason:
            self._last = delta
        return _A_PIECE + 4 * (len(delta.text) + len(delta.reasoning)) + sum(map(_size, listed))

    def _end(self, *, has_calls: bool = False) -> dict[str, Any]:
        last = self._last or Delta(self.index, "")
        reason = details.finish_reason(last.finish_reason, has_calls=has_calls)
        return {"finish_reason": reason, **self._told(last, self._details)}


class ChatChoice(_Grown):
    """Of a chat completion."""

    def __init__(self, index: int, asked: Asked, end_ids: Sequence[int]) -> None:
        super().__init__(index, asked, end_ids)
        self._entries: list[msgspec.Raw] = []
        self._begun = False
        self._reader = None if asked.calls is None else call_reader(asked.calls, asked.functions)
        self._calls = 0

    def piece(self, delta: Delta) -> dict[str, Any]:
        """A chunk's choice; the first one names the role."""
        told: dict[str, Any] = {} if self._begun else {"role": "assistant", "content": ""}
        self._begun = True
        if delta.reasoning:
            told["reasoning_content"] = delta.reasoning
        text, calls = self._read(delta)
        if text:
            told["content"] = text
        if calls:
            told["tool_calls"] = [{"index": self._calls + place, **call.told()} for place, call in enumerate(calls)]
            self._calls += len(calls)
        entries = self._log_probs(delta)
        return {
            "index": self.index,
            "delta": told,
            "logprobs": {"content": entries, "refusal": None} if entries else None,
            "finish_reason": details.finish_reason(delta.finish_reason, has_calls=self._calls > 0),
            **self._told(delta, self._detailed(delta)),
        }

    def _read(self, delta: Delta) -> tuple[str, list[FunctionCall]]:
        """The text and the calls that are clear with a piece."""
        if self._reader is None:
            return delta.text, []
        found = self._reader.add(delta.text, last=bool(delta.finish_reason))
        return found.text, found.calls

    def _log_probs(self, delta: Delta) -> list[msgspec.Raw]:
        if not self._asked.log_probs:
            return []
        tokens = self._answer_tokens(delta)
        return [msgspec.Raw(msgspec.json.encode(chat_entry(token, self._alternatives))) for token in tokens]

    def add(self, delta: Delta) -> int:
        """Keep what is new."""
        entries = self._log_probs(delta)
        self._entries += entries
        return self._keep(delta) + sum(map(_size, entries))

    def whole(self) -> dict[str, Any]:
        """A response's choice."""
        text, calls = self._read(Delta(self.index, "".join(self._text), finish_reason="stop"))
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message |= {"content": text or None, "tool_calls": [call.told() for call in calls]}
        if reasoning := "".join(self._reasoning):
            message["reasoning_content"] = reasoning
        return {
            "index": self.index,
            "message": message,
            "logprobs": {"content": self._entries, "refusal": None} if self._asked.log_probs else None,
            **self._end(has_calls=bool(calls)),
        }


class TextChoice(_Grown):
    """Of a completion. A thought goes to ``reasoning_content`` beside the text."""

    def __init__(self, index: int, asked: Asked, end_ids: Sequence[int]) -> None:
        super().__init__(index, asked, end_ids)
        self._listed: dict[str, list[Any]] = {}
        self._offset = 0

    def piece(self, delta: Delta) -> dict[str, Any]:
        """A chunk's choice."""
        return {
            "index": self.index,
            "text": delta.text,
            **({"reasoning_content": delta.reasoning} if delta.reasoning else {}),
            "logprobs": self._log_probs(delta),
            "finish_reason": details.finish_reason(delta.finish_reason),
            **self._told(delta, self._detailed(delta)),
        }

    def _log_probs(self, delta: Delta) -> dict[str, list[Any]] | None:
        """Four lists of the same length, as completions have them; offsets count the characters of the text."""
        if not self._asked.log_probs:
            return None
        listed: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token in self._answer_tokens(delta):
            entry = chat_entry(token, self._alternatives)
            listed["tokens"].append(entry["token"])
            listed["token_logprobs"].append(entry["logprob"])
            top: dict[str, float] = {}
            for alternative in entry["top_logprobs"]:
                top.setdefault(alternative["token"], alternative["logprob"])
            listed["top_logprobs"].append(top)
            listed["text_offset"].append(self._offset)
            self._offset += len(token.text)
        return listed

    def add(self, delta: Delta) -> int:
        """Keep what is new."""
        listed = self._log_probs(delta) or {}
        for name, values in listed.items():
            self._listed.setdefault(name, []).extend(values)
        return self._keep(delta) + _AN_ENTRY * len(delta.tokens) * (4 + self._alternatives)

    def whole(self) -> dict[str, Any]:
        """A response's choice."""
        reasoning = "".join(self._reasoning)
        return {
            "index": self.index,
            "text": "".join(self._text),
            **({"reasoning_content": reasoning} if reasoning else {}),
            "logprobs": self._listed if self._asked.log_probs else None,
            **self._end(),
        }
