"""Text of a growing list of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_REPLACEMENT = "\ufffd"


class IncrementalDetokenizer:
    """Turns tokens into text as they come, holding back incomplete characters.

    What ``push`` and ``flush`` return, joined, is the tokenizer's decoding of all tokens. Only a window of tokens
    since the last complete character is decoded again, so a token costs the same however long the answer is.
    """

    def __init__(self, tokenizer: Any, skip_special_tokens: bool = True) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        self._decode = backend.decode
        self._skip = skip_special_tokens
        self._window: list[int] = []
        self._shown = ""
        """Decoding of the window's head: sent already, it gives the rest its context (a leading space, say)."""

    def push(self, token_ids: Sequence[int]) -> str:
        """Text that has become complete."""
        self._window.extend(token_ids)
        text: str = self._decode(self._window, skip_special_tokens=self._skip)
        if text.endswith(_REPLACEMENT) or not text.startswith(self._shown):
            return self._push_whole_characters(text, len(token_ids))
        new = text[len(self._shown) :]
        self._slide(token_ids, text)
        return new

    def _push_whole_characters(self, text: str, added: int) -> str:
        """Everything before a possibly incomplete character; the window stays until that is known."""
        if not text.startswith(self._shown):
            return ""
        stable = text.rstrip(_REPLACEMENT)
        if len(stable) <= len(self._shown):
            return ""
        new = stable[len(self._shown) :]
        self._shown = stable
        return new

    def _slide(self, token_ids: Sequence[int], text: str) -> None:
        """Keep the last few tokens as context once a character is complete."""
        keep = 6
        if len(self._window) > 4 * keep:
            tail = self._window[-keep:]
            shown: str = self._decode(tail, skip_special_tokens=self._skip)
            if text.endswith(shown) and shown and not shown.startswith(_REPLACEMENT):
                self._window, self._shown = tail, shown
                return
        self._shown = text

    def flush(self) -> str:
        """What is left at the end: incomplete characters, as U+FFFD."""
        text: str = self._decode(self._window, skip_special_tokens=self._skip)
        new = text[len(self._shown) :] if text.startswith(self._shown) else ""
        self._shown = text
        return new
