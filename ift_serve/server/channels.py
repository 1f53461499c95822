"""The text of a candidate's tokens, thought and answer told apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ift_serve.server.tokens import TokenMessages
from ift_serve.text.detokenizer import Piece, PieceStream
from ift_serve.text.phases import Channel, ChannelPiece, ChannelRouter, Phase, PhaseState
from ift_serve.text.token_texts import TokenDecoder
from ift_serve.v1 import inference_pb2 as pb

CHANNELS: dict[str, pb.Channel.ValueType] = {
    Channel.REASONING.value: pb.CHANNEL_REASONING,
    Channel.ANSWER.value: pb.CHANNEL_ANSWER,
    Channel.MARKER.value: pb.CHANNEL_MARKER,
}


class Texts(NamedTuple):
    """What has become known of each channel."""

    reasoning: str
    answer: str


class PlainText:
    """Text of a model without markers: all of it is the answer."""

    reasoning_tokens = 0

    def __init__(self, decoder: TokenDecoder, messages: TokenMessages | None) -> None:
        self.stream = PieceStream(decoder)
        self.answer_tokens = 0
        self._special = decoder.special
        self._messages = messages

    def push(self, token_id: int) -> Texts:
        """The next token."""
        self.answer_tokens += 1
        if token_id in self._special:
            if self._messages is not None:
                self._messages.name(self.stream)
            return Texts("", "")
        return Texts("", self._taken(self.stream.push([token_id])))

    def end(self) -> None:
        """The token that was announced ends the candidate and is no part of the text."""
        self.answer_tokens += 1
        if self._messages is not None:
            self._messages.name(self.stream)

    def flush(self) -> Texts:
        """What is left at the end."""
        return Texts("", self._taken(self.stream.flush()))

    def _taken(self, pieces: list[Piece]) -> str:
        if self._messages is not None:
            self._messages.take(pieces)
        return "".join(piece.text for piece in pieces)


class ChannelText:
    """Text of a model that thinks between markers, which are part of neither channel."""

    def __init__(self, state: PhaseState, decoder: TokenDecoder, messages: TokenMessages | None) -> None:
        """``state``: before the first token, this candidate's own."""
        self._router = ChannelRouter(state, decoder)
        self._messages = messages
        self._ends = {pb.CHANNEL_REASONING: 0, pb.CHANNEL_ANSWER: 0}

    @property
    def stream(self) -> PieceStream:
        """What has come so far."""
        return self._router.stream

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of the thought so far."""
        return self._router.state.reasoning_tokens + self._ends[pb.CHANNEL_REASONING]

    @property
    def answer_tokens(self) -> int:
        """Tokens of the answer so far."""
        return self._router.state.answer_tokens + self._ends[pb.CHANNEL_ANSWER]

    def push(self, token_id: int) -> Texts:
        """The next token."""
        return self._taken(self._router.push([token_id]))

    def end(self) -> None:
        """The token that was announced ends the candidate and is no part of the text."""
        thinks = self._router.state.phase is Phase.THOUGHT
        channel = pb.CHANNEL_REASONING if thinks else pb.CHANNEL_ANSWER
        self._ends[channel] += 1
        if self._messages is not None:
            self._messages.name(self.stream, channel)

    def flush(self) -> Texts:
        """What is left at the end."""
        return self._taken(self._router.flush())

    def _taken(self, pieces: Iterable[ChannelPiece]) -> Texts:
        reasoning = answer = ""
        for piece in pieces:
            if piece.channel is Channel.REASONING:
                reasoning += piece.text
            elif piece.channel is Channel.ANSWER:
                answer += piece.text
            if self._messages is not None:
                self._messages.route(piece, CHANNELS[piece.channel.value], self._size(piece.token_id))
        return Texts(reasoning, answer)

    def _size(self, token_id: int) -> int:
        """Bytes of a token that may be cut in parts; 0 for any other."""
        return len(self._router.state.settings.markers.pieces.get(token_id, b""))


def candidate_text(
    state: PhaseState | None, decoder: TokenDecoder, messages: TokenMessages | None
) -> PlainText | ChannelText:
    """The text of one candidate; ``state``: that of all candidates before their first token, None without phases."""
    return PlainText(decoder, messages) if state is None else ChannelText(state.copy(), decoder, messages)
