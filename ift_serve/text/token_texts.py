"""Text of tokens, as far as it can be sent before the last token is known."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import Enum
from typing import Any

from ift_serve.text.bounds import byte_characters

_BYTE_TOKEN = re.compile(r"<0[xX]([0-9a-fA-F]{2})>")
_BY_TOKEN = {"Replace", "ByteFallback", "Metaspace", "WordPiece", "BPEDecoder", "CTC", "Strip", "Fuse"}
"""Decoders that write each token by itself, knowing only whether it is first or last and what stood before it."""


class DecoderKind(Enum):
    """What tokens are: bytes that are UTF-8 together, texts of their own, or unknown before the last one is there."""

    BYTES = 1
    TOKENS = 2
    WHOLE = 3


class TokenDecoder:
    """The decoder of one tokenizer: what ``Tokenizer.decode`` of the ``tokenizers`` library gives, token by token.

    That is the reference for every text that is sent. transformers' own ``decode`` may tidy spaces after it
    (``clean_up_tokenization_spaces``), which is not done.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        added = self._backend.get_added_tokens_decoder()
        self.special = {index: token.content for index, token in added.items() if token.special}
        steps = _steps(self._backend.decoder)
        self.kind = _kind(steps)
        self._has_byte_tokens = any(step["type"] == "ByteFallback" for step in steps)
        self.is_context_free = self.kind is DecoderKind.TOKENS and all(map(_ignores_neighbours, steps))
        """Whether a token has the same text behind any other."""
        self.inner_texts: dict[int, str] = {}
        """Texts of tokens that are not the first, where that is so; as they are met."""
        self.alone: dict[int, Any] = {}
        """Pieces of byte-level tokens behind whole characters; as they are met."""
        self._byte_values: dict[int, int | None] = {}
        self._raw: dict[int, bytes] = {}
        self._bytes = {character: byte for byte, character in byte_characters().items()}

    @classmethod
    def of(cls, tokenizer: Any) -> TokenDecoder:
        """The decoder of a tokenizer; a decoder is its own."""
        return tokenizer if isinstance(tokenizer, cls) else cls(tokenizer)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of all the tokens, special ones too."""
        text: str = self._backend.decode(ids, skip_special_tokens=False)
        return text

    def is_byte(self, token_id: int) -> bool:
        """Whether the token stands for one byte of a character that may go on in the next token."""
        return self._has_byte_tokens and self._byte(token_id) is not None

    def _byte(self, token_id: int) -> int | None:
        if token_id not in self._byte_values:
            self._byte_values[token_id] = self._read_byte(token_id)
        return self._byte_values[token_id]

    def _read_byte(self, token_id: int) -> int | None:
        found = _BYTE_TOKEN.fullmatch(self._backend.id_to_token(token_id) or "")
        return None if found is None else int(found[1], 16)

    def raw(self, token_id: int) -> bytes:
        """The bytes of a token: of a byte token its byte, of a byte-level token what its characters stand for."""
        known = self._raw.get(token_id)
        if known is None:
            known = self._raw[token_id] = self._read_raw(token_id)
        return known

    def _read_raw(self, token_id: int) -> bytes:
        if self.kind is not DecoderKind.BYTES:
            return bytes([self._byte(token_id) or 0])
        token = self._backend.id_to_token(token_id) or ""
        try:
            return bytes([self._bytes[character] for character in token])
        except KeyError:
            return str(token).encode()


def _steps(decoder: Any) -> list[dict[str, Any]]:
    """The decoders of a sequence, one after the other; none: tokens are joined by spaces."""
    if decoder is None:
        return []
    state: dict[str, Any] = json.loads(decoder.__getstate__())
    steps, waiting = [], [state]
    while waiting:
        step = waiting.pop(0)
        if step["type"] == "Sequence":
            waiting = [*step["decoders"], *waiting]
        else:
            steps.append(step)
    return steps


def _kind(steps: list[dict[str, Any]]) -> DecoderKind:
    types = [step["type"] for step in steps]
    if types == ["ByteLevel"]:
        return DecoderKind.BYTES
    if not set(types) <= _BY_TOKEN:
        return DecoderKind.WHOLE
    behind = steps[types.index("Fuse") + 1 :] if "Fuse" in types else []
    # Once all tokens are one text, a change must not depend on characters of more than one of them.
    if all(step["type"] in ("Strip", "Fuse") or _is_one_character(step) for step in behind):
        return DecoderKind.TOKENS
    return DecoderKind.WHOLE


def _ignores_neighbours(step: dict[str, Any]) -> bool:
    return step["type"] not in ("BPEDecoder", "CTC") and not step.get("stop")


def _is_one_character(step: dict[str, Any]) -> bool:
    return step["type"] == "Replace" and len(step["pattern"].get("String", "")) == 1
