"""Text of a growing list of tokens."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ift_serve.text.token_texts import DecoderKind, TokenDecoder

_REPLACEMENT = "\ufffd"
_CONTEXT, _WINDOW = 8, 24
"""Tokens that are decoded together with new ones, and how many they may become before the first of them go."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token adds to a text.

    ``text``: joined over all tokens, the text. A character that several tokens make is in the last of them; bytes
    that make no character are U+FFFD where that is known. ``raw``: the token's own bytes, so that a part of a
    character is there too.
    """

    token_id: int
    text: str
    raw: bytes


class PieceStream:
    """Cuts the decoding of a list of tokens into the pieces of its tokens, as they come.

    The pieces joined are ``tokenizer.decode`` of all tokens, however they were pushed. A piece is held back only while
    its text can still change: bytes of an incomplete character, and byte tokens until the first other token, because
    a run of them that is not UTF-8 as a whole decodes to nothing but U+FFFD. A token costs the same however long the
    text is.
    """

    def __init__(self, decoder: TokenDecoder) -> None:
        self._decoder = decoder
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._incomplete: Piece | None = None
        """The last piece, if a character of it is incomplete: at the end U+FFFD would be added."""
        self._window: list[int] = []
        self._shown = ""
        """Decoding of the window, which gives new tokens their context; all of it is in earlier pieces."""
        self._run: list[int] = []
        """Tokens whose text is not known yet."""

    def push(self, token_ids: Iterable[int]) -> list[Piece]:
        """The pieces that have become known, in order."""
        if self._decoder.kind is DecoderKind.BYTES:
            return [piece for i in token_ids for piece in self._push_raw(i, self._decoder.raw(i))]
        pieces: list[Piece] = []
        for token_id in token_ids:
            if self._decoder.kind is DecoderKind.WHOLE or self._decoder.is_byte(token_id):
                self._run.append(token_id)
            else:
                pieces += self._end_run()
                pieces.append(self._token_piece(token_id))
        return pieces

    def push_part(self, token_id: int, data: bytes) -> list[Piece]:
        """As ``push`` of a token of which only some bytes belong to the text."""
        if self._decoder.kind is DecoderKind.BYTES:
            return self._push_raw(token_id, data)
        return [*self._end_run(), Piece(token_id, data.decode(errors="replace"), data)]

    def flush(self) -> list[Piece]:
        """The pieces that are left at the end, or where a text ends and another begins."""
        if self._decoder.kind is DecoderKind.BYTES:
            rest, last = self._utf8.decode(b"", final=True), self._incomplete
            self._incomplete = None
            return [] if last is None else [replace(last, text=last.text + rest)]
        pieces = self._end_run()
        if self._decoder.kind is DecoderKind.WHOLE:
            # What follows is a text of its own: nothing says how it would change what has been sent.
            self._window, self._shown = [], ""
        return pieces

    def peek(self, token_id: int) -> Piece:
        """The piece that a token would be if it came next."""
        if self._decoder.kind is DecoderKind.BYTES:
            return self._peeked_bytes(token_id)
        if self._decoder.is_byte(token_id):
            raw = [*map(self._decoder.raw, self._run), self._decoder.raw(token_id)]
            return Piece(token_id, _characters(raw)[-1], raw[-1])
        text = self._peeked(token_id)
        return Piece(token_id, text, text.encode())

    def _peeked_bytes(self, token_id: int) -> Piece:
        state = self._utf8.getstate()
        known: Piece | None = None if state[0] else self._decoder.alone.get(token_id)
        if known is None:
            raw = self._decoder.raw(token_id)
            known = Piece(token_id, self._utf8.decode(raw), raw)
            self._utf8.setstate(state)
            if not state[0]:
                self._decoder.alone[token_id] = known
        return known

    def _peeked(self, token_id: int) -> str:
        if self._run:
            context = [*self._window, *self._run]
            return self._added(context, self._decoder.decode(context), token_id)
        if not (self._shown and self._decoder.is_context_free):
            return self._added(self._window, self._shown, token_id)
        known = self._decoder.inner_texts
        if token_id not in known:
            known[token_id] = self._added(self._window, self._shown, token_id)
        return known[token_id]

    def _push_raw(self, token_id: int, raw: bytes) -> list[Piece]:
        known = [] if self._incomplete is None else [self._incomplete]
        piece, self._incomplete = Piece(token_id, self._utf8.decode(raw), raw), None
        if self._utf8.getstate()[0]:
            self._incomplete = piece
            return known
        return [*known, piece]

    def _added(self, context: list[int], shown: str, token_id: int) -> str:
        return self._decoder.decode([*context, token_id])[len(shown) :]

    def _token_piece(self, token_id: int) -> Piece:
        text = self._decoder.decode([*self._window, token_id])
        piece = Piece(token_id, text[len(self._shown) :], text[len(self._shown) :].encode())
        self._window.append(token_id)
        self._shown = text
        self._slide()
        return piece

    def _end_run(self) -> list[Piece]:
        """The pieces of the run, now that it is known to be whole."""
        run, self._run = self._run, []
        if not run:
            return []
        self._window += run
        before, self._shown = self._shown, self._decoder.decode(self._window)
        text = self._shown[len(before) :]
        raw = [text.encode()] if self._decoder.kind is DecoderKind.WHOLE else [*map(self._decoder.raw, run)]
        raw = [b""] * (len(run) - len(raw)) + raw
        return [Piece(i, t, r) for i, t, r in zip(run, _shared(text, raw), raw, strict=True)]

    def _slide(self) -> None:
        """Drop the first tokens of the window.

        What is left must have a text: then whatever a decoder does at the beginning of a text is done within it.
        """
        if len(self._window) <= _WINDOW:
            return
        tail = self._window[-_CONTEXT:]
        while len(tail) < len(self._window) and self._decoder.is_byte(tail[0]):
            tail = self._window[-2 * len(tail) :]
        shown = self._decoder.decode(tail)
        if shown:
            self._window, self._shown = tail, shown


def cut(decoder: TokenDecoder, token_ids: Sequence[int]) -> list[Piece]:
    """The pieces of all tokens of a text that is whole, special ones too: one for each."""
    stream = PieceStream(decoder)
    return [*stream.push(token_ids), *stream.flush()]


def _characters(raw: Sequence[bytes]) -> list[str]:
    """The characters that each of some bytes completes."""
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    return [utf8.decode(one) for one in raw]


def _shared(text: str, raw: Sequence[bytes]) -> list[str]:
    """The text of a run, shared out among its tokens: each character to the token that completes it."""
    if text == _REPLACEMENT * len(raw):
        return [_REPLACEMENT] * len(raw)
    shares = _characters(raw)
    whole = "".join(shares)
    # The decoder may have stripped the beginning of the text.
    missing = len(whole) - len(text)
    if missing >= 0 and whole[missing:] == text:
        for index, share in enumerate(shares):
            shares[index] = share[missing:]
            missing = max(0, missing - len(share))
        return shares
    return [""] * (len(raw) - 1) + [text]


class IncrementalDetokenizer:
    """Turns tokens into text as they come.

    What ``push`` and ``flush`` return, joined, is the tokenizer's decoding of all tokens.
    """

    def __init__(self, tokenizer: Any, skip_special_tokens: bool = True) -> None:
        decoder = TokenDecoder.of(tokenizer)
        self._pieces = PieceStream(decoder)
        self._skipped = decoder.special if skip_special_tokens else {}

    def push(self, token_ids: Sequence[int]) -> str:
        """Text that has become known."""
        return "".join(piece.text for piece in self._pieces.push(i for i in token_ids if i not in self._skipped))

    def flush(self) -> str:
        """What is left at the end."""
        return "".join(piece.text for piece in self._pieces.flush())
