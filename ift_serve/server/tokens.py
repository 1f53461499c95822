"""The tokens of a candidate as callers read them, beside its text."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ift_serve.engine.protocol.generate import CandidateOutput
from ift_serve.text.detokenizer import Piece, PieceStream
from ift_serve.text.phases import ChannelPiece
from ift_serve.text.token_texts import TokenDecoder
from ift_serve.v1 import inference_pb2 as pb


class TokenMessages:
    """Messages of tokens, sent once their text is known.

    A byte token's text can depend on the tokens after it; it and those behind it wait until then. Special tokens are
    no part of the text: they bear their own name.
    """

    def __init__(self, decoder: TokenDecoder, *, statistics: bool) -> None:
        self._decoder = decoder
        self._statistics = statistics
        self._waiting: deque[pb.Token] = deque()
        self._unknown: deque[pb.Token] = deque()
        """Those of the waiting messages whose text is not known yet; both are in the tokens' order."""
        self._position = -1
        """Place of the token of which some parts have come and others may follow; -1: of none."""

    def add(self, output: CandidateOutput, place: int, stream: PieceStream) -> None:
        """A token whose piece follows. ``stream``: what has come before it."""
        token_id, statistics = output.token_ids[place], output.statistics[place]
        message = pb.Token(token_id=token_id, log_prob=statistics.log_prob, forced=statistics.forced)
        for alternative, log_prob in output.top_log_probs[place] if output.top_log_probs else ():
            piece = self._alone(alternative, stream)
            message.alternatives.add(token_id=alternative, text=piece.text, raw=piece.raw, log_prob=log_prob)
        if statistics.processed:
            message.processed_log_prob, *others = statistics.processed
            for one, processed in zip(message.alternatives, others, strict=False):
                one.processed_log_prob = processed
        if self._statistics and not statistics.forced:
            message.statistics.p1 = statistics.p1
            message.statistics.p2 = statistics.p2
            message.statistics.entropy = statistics.entropy
            message.statistics.mean_top20_log_prob = statistics.mean_top20_log_prob
            message.statistics.temperature = statistics.temperature
        self._waiting.append(message)
        self._unknown.append(message)

    def name(self, stream: PieceStream, channel: pb.Channel.ValueType = pb.CHANNEL_UNSPECIFIED) -> None:
        """The last token is not part of the text: it ends it, or is special."""
        message = self._unknown.pop()
        piece = self._alone(message.token_id, stream)
        message.text, message.raw, message.channel = piece.text, piece.raw, channel

    def take(self, pieces: Iterable[Piece]) -> None:
        """Pieces of the text, in the order of their tokens."""
        for piece in pieces:
            message = self._unknown.popleft()
            message.text, message.raw = piece.text, piece.raw

    def route(self, piece: ChannelPiece, channel: pb.Channel.ValueType, size: int) -> None:
        """The next token's piece, or the next part of it. ``size``: its bytes if it may come in parts, else 0."""
        if self._position not in (-1, piece.position):
            self._unknown.popleft()
        self._position = piece.position
        message = self._unknown[0]
        name = self._decoder.special.get(piece.token_id)
        message.text += piece.text if name is None else name
        message.raw += piece.raw
        message.channel = channel
        if len(message.raw) >= size:
            self._unknown.popleft()
            self._position = -1

    def end(self) -> None:
        """No more parts will come."""
        if self._position >= 0:
            self._unknown.popleft()
            self._position = -1

    def known(self) -> list[pb.Token]:
        """Messages that can be sent."""
        sent = []
        while self._waiting and not (self._unknown and self._waiting[0] is self._unknown[0]):
            sent.append(self._waiting.popleft())
        return sent

    def _alone(self, token_id: int, stream: PieceStream) -> Piece:
        name = self._decoder.special.get(token_id)
        return stream.peek(token_id) if name is None else Piece(token_id, name, name.encode())
