"""Text of a growing sequence, by channel."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ift_serve.text.detokenizer import Piece, PieceStream
from ift_serve.text.phases.settings import Channel
from ift_serve.text.phases.state import PhaseState, Routed
from ift_serve.text.token_texts import TokenDecoder


@dataclass(frozen=True, slots=True)
class ChannelPiece:
    """What a token, or a part of one, adds to a channel.

    ``position``: the token's place among the generated ones. ``text`` of the pieces of a channel, joined, is its text;
    a special token adds none and bears its name in ``raw``.
    """

    channel: Channel
    position: int
    token_id: int
    text: str
    raw: bytes


class ChannelRouter:
    """Turns tokens into pieces of text, each with its channel, in the order of the tokens.

    Tokens are looked at one by one, so what is sent does not depend on how they came: the pieces of a stream, joined
    by channel, are the whole answer. A piece is held back while its channel or its text may still change. A character
    that is incomplete where a channel ends does not go on in the other one.
    """

    def __init__(self, state: PhaseState, decoder: TokenDecoder) -> None:
        """``state``: before the first token; the router goes on with it."""
        self.state = state
        self.stream = PieceStream(decoder)
        self._special = decoder.special
        self._channel = Channel.MARKER
        self._waiting: deque[Routed] = deque()
        self._pieces: dict[Routed, ChannelPiece] = {}
        """Pieces that are known, of the parts that wait."""
        self._unknown: deque[Routed] = deque()
        """Parts that are in the stream, without a piece."""

    def push(self, token_ids: Iterable[int]) -> list[ChannelPiece]:
        """The pieces that have become known."""
        known: list[ChannelPiece] = []
        for token_id in token_ids:
            known += self._add(self.state.observe(token_id).routed)
        return known

    def flush(self) -> list[ChannelPiece]:
        """The pieces that are left at the end, such as the beginning of a marker that never came."""
        known = self._add(self.state.finish())
        self._take(self.stream.flush())
        return known + self._known()

    def _add(self, parts: Iterable[Routed]) -> list[ChannelPiece]:
        for part in parts:
            self._waiting.append(part)
            if part.channel is not self._channel:
                self._take(self.stream.flush())
                self._channel = part.channel
            name = self._special.get(part.token_id)
            if name is not None:
                self._pieces[part] = ChannelPiece(part.channel, part.position, part.token_id, "", name.encode())
                continue
            self._unknown.append(part)
            if part.text is None:
                self._take(self.stream.push([part.token_id]))
            else:
                self._take(self.stream.push_part(part.token_id, part.text))
        return self._known()

    def _take(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            part = self._unknown.popleft()
            self._pieces[part] = ChannelPiece(part.channel, part.position, part.token_id, piece.text, piece.raw)

    def _known(self) -> list[ChannelPiece]:
        known = []
        while self._waiting and self._waiting[0] in self._pieces:
            known.append(self._pieces.pop(self._waiting.popleft()))
        return known
