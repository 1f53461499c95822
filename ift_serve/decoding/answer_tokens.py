"""The text of a path of tokens, and which of the tokens make a part of it."""

from __future__ import annotations

import codecs
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Protocol

from ift_serve.checks.verdict import Span
from ift_serve.text.detokenizer import cut
from ift_serve.text.phases import Channel, ChannelPiece
from ift_serve.text.token_texts import DecoderKind, TokenDecoder


class PlacedPiece(Protocol):
    """The text that one token adds, and the token's place among the generated ones."""

    @property
    def position(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def raw(self) -> bytes: ...


class PathText:
    """Text with the places of the tokens that make it.

    A token covers the characters that it completes or begins, so each token that holds a byte of a character covers it.
    ``length``: characters of the text that count, None: all.
    """

    def __init__(self, pieces: Iterable[PlacedPiece], length: int | None = None) -> None:
        self._positions: list[int] = []
        self._begins: list[int] = []
        """First characters, which never decrease; as ``_ends``, past the last ones."""
        self._ends: list[int] = []
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        texts: list[str] = []
        place = 0
        for piece in pieces:
            utf8.decode(piece.raw)
            texts.append(piece.text)
            begun = 1 if utf8.getstate()[0] else 0
            self._positions.append(piece.position)
            self._begins.append(place)
            place += len(piece.text)
            self._ends.append(place + begun)
        self.text = "".join(texts)[:length]

    @classmethod
    def of(cls, decoder: TokenDecoder, token_ids: Sequence[int], start: int = 0) -> PathText:
        """The text of ``token_ids[start:]`` without special tokens; those before only give it its context.

        Raises ValueError for a tokenizer whose tokens have no text of their own (``DecoderKind.WHOLE``).
        """
        if decoder.kind is DecoderKind.WHOLE:
            raise ValueError("the tokens of this tokenizer have no text of their own")
        shown = [index for index, token_id in enumerate(token_ids) if token_id not in decoder.special]
        pieces = zip(shown, cut(decoder, [token_ids[i] for i in shown]), strict=True)
        return cls(
            ChannelPiece(Channel.ANSWER, index, piece.token_id, piece.text, piece.raw)
            for index, piece in pieces
            if index >= start
        )

    def tokens(self, span: Span) -> range | None:
        """Places of the tokens that make ``text[span[0]:span[1]]``, from the first to the last.

        None where the span is empty.
        """
        begin, end = span
        if begin >= end:
            return None
        first = bisect_right(self._ends, begin)
        last = bisect_left(self._begins, end) - 1
        if first > last:
            return None
        return range(self._positions[first], self._positions[last] + 1)
