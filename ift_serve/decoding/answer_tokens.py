"""The text of a path of tokens, and which of the tokens make a part of it."""

from __future__ import annotations

import codecs
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from ift_serve.checks.verdict import Span
from ift_serve.text.detokenizer import cut
from ift_serve.text.token_texts import DecoderKind, TokenDecoder


class PathText:
    """The text of generated tokens with the place of each in it.

    ``text``: without special tokens, and without what stands before ``start``, which only gives the rest its context.
    A token covers the characters that it completes or begins, so each token that holds a byte of a character covers it.

    Raises ValueError for a tokenizer whose tokens have no text of their own (``DecoderKind.WHOLE``).
    """

    def __init__(self, decoder: TokenDecoder, token_ids: Sequence[int], start: int = 0) -> None:
        if decoder.kind is DecoderKind.WHOLE:
            raise ValueError("the tokens of this tokenizer have no text of their own")
        self._indices: list[int] = []
        self._begins: list[int] = []
        """First characters, which never decrease; as ``_ends``, past the last ones."""
        self._ends: list[int] = []
        shown = [index for index, token_id in enumerate(token_ids) if token_id not in decoder.special]
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        texts: list[str] = []
        place = 0
        for index, piece in zip(shown, cut(decoder, [token_ids[i] for i in shown]), strict=True):
            utf8.decode(piece.raw)
            if index < start:
                continue
            texts.append(piece.text)
            begun = 1 if utf8.getstate()[0] else 0
            self._indices.append(index)
            self._begins.append(place)
            place += len(piece.text)
            self._ends.append(place + begun)
        self.text = "".join(texts)

    def tokens(self, span: Span) -> range | None:
        """Indices into the path of the tokens that make ``text[span[0]:span[1]]``, from the first to the last.

        None where the span is empty.
        """
        begin, end = span
        if begin >= end:
            return None
        first = bisect_right(self._ends, begin)
        last = bisect_left(self._begins, end) - 1
        if first > last:
            return None
        return range(self._indices[first], self._indices[last] + 1)
