"""Tokens in OpenAI's shape: those of the answer's text; for who asks, all of them with what is known of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from ift_serve.client import Alternative, Token

_LEAST = -9999.0
"""What OpenAI reports for a token that could not be drawn; JSON has no minus infinity."""


class AnswerTokens:
    """Finds the tokens of which an answer's text is made: not its end, a thought, or what a stop string has cut off.

    Text may lag behind its tokens, since what could be the beginning of a stop string is held back.
    """

    def __init__(self, end_ids: Iterable[int]) -> None:
        self._end_ids = frozenset(end_ids)
        self._waiting: deque[Token] = deque()
        self._text = ""

    def add(self, text: str, tokens: Iterable[Token], *, last: bool) -> list[Token]:
        """The tokens whose text has come."""
        self._text += text
        self._waiting.extend(token for token in tokens if token.channel in ("", "answer"))
        found: list[Token] = []
        while self._waiting:
            token = self._waiting[0]
            if token.text and self._text.startswith(token.text):
                self._text = self._text[len(token.text) :]
            elif token.text and self._text and token.text.startswith(self._text):
                if not last:
                    break  # the rest of its text has not come
                self._text = ""
            elif token.text and not self._text and not last and token.token_id not in self._end_ids:
                break
            elif token.text or token.token_id in self._end_ids or (last and not self._text):
                self._waiting.popleft()  # a special token, or behind the end of the text
                continue
            found.append(self._waiting.popleft())
        return found


def chat_entry(token: Token, alternatives: int) -> dict[str, Any]:
    """An entry of ``logprobs.content``."""
    listed = [_shown(alternative) for alternative in token.alternatives[:alternatives]]
    return {**_shown(token), "top_logprobs": listed}


def _shown(token: Token | Alternative) -> dict[str, Any]:
    return {"token": _text(token), "logprob": max(token.log_prob, _LEAST), "bytes": list(token.raw)}


def _text(token: Token | Alternative) -> str:
    """Its text, or its bytes as far as they are characters."""
    return token.text or token.raw.decode("utf-8", "replace")


def detail(token: Token, end_ids: Collection[int]) -> msgspec.Raw:
    """All that is known of a token, encoded. ``end_ids``: of tokens that end an answer and are no part of its text."""
    told: dict[str, Any] = {
        "id": token.token_id,
        "text": token.text,
        "channel": token.channel or "answer",
        "logprob": None if token.forced else max(token.log_prob, _LEAST),
    }
    if token.forced:
        told["forced"] = True
    if token.token_id in end_ids:
        told["end"] = True
    if token.processed_log_prob is not None:
        told["processed_logprob"] = max(token.processed_log_prob, _LEAST)
    if (s := token.statistics) is not None:
        told |= {"p1": s.p1, "p2": s.p2, "entropy": s.entropy, "temperature": s.temperature}
        told["mean_top20_logprob"] = s.mean_top20_log_prob
    if token.alternatives:
        told["alternatives"] = [_alternative(alternative) for alternative in token.alternatives]
    return msgspec.Raw(msgspec.json.encode(told))


def _alternative(alternative: Alternative) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": alternative.token_id,
        "text": _text(alternative),
        "logprob": max(alternative.log_prob, _LEAST),
    }
    if alternative.processed_log_prob is not None:
        told["processed_logprob"] = max(alternative.processed_log_prob, _LEAST)
    return told
