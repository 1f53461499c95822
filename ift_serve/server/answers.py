"""Engine outputs to the candidates that callers read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ift_serve.engine.protocol.generate import CandidateOutput
from ift_serve.engine.protocol.results import FinishReason, RequestUsage
from ift_serve.server.metrics import Metrics
from ift_serve.server.tokens import TokenMessages
from ift_serve.text import StopMatcher
from ift_serve.text.detokenizer import Piece, PieceStream
from ift_serve.text.token_texts import TokenDecoder
from ift_serve.v1 import inference_pb2 as pb

FINISH_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.EOS: pb.FINISH_REASON_EOS,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: pb.FINISH_REASON_CANCELLED,
    FinishReason.DEADLINE: pb.FINISH_REASON_DEADLINE,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller asked to see of each token."""

    tokens: bool
    statistics: bool

    @classmethod
    def of(cls, details: pb.Details) -> Wanted:
        """From the request's details; alternatives and statistics imply tokens."""
        return cls(details.tokens or details.statistics or details.top_alternatives > 0, details.statistics)


class CandidateText:
    """One candidate as it grows: its text, whether it ended and why."""

    def __init__(self, index: int, tokenizer: Any, stop: list[str], wanted: Wanted) -> None:
        decoder = TokenDecoder.of(tokenizer)
        self.index = index
        self.tokens = 0
        self.finish_reason: pb.FinishReason.ValueType = pb.FINISH_REASON_UNSPECIFIED
        self._special = decoder.special
        self._stream = PieceStream(decoder)
        self._matcher = StopMatcher(stop)
        self._messages = TokenMessages(decoder, statistics=wanted.statistics) if wanted.tokens else None
        self._last_time = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether nothing more of it is to be sent."""
        return self.finish_reason != pb.FINISH_REASON_UNSPECIFIED

    def add(self, output: CandidateOutput, metrics: Metrics) -> pb.CandidateDelta | None:
        """What is new for the caller; None where nothing can be sent yet."""
        ids, reason = output.token_ids, output.finish_reason
        delta = pb.CandidateDelta(index=self.index)
        text, matched, used = self._read(output)
        if matched is None and reason is not None:
            rest, matched = self._matcher.push(self._taken(self._stream.flush()))
            text += rest
        self.tokens += used
        if matched is not None:
            self.finish_reason = pb.FINISH_REASON_STOP
            delta.matched_stop.text = matched
        elif reason is not None:
            text += self._matcher.flush()
            self.finish_reason = FINISH_REASONS[reason]
            if reason is FinishReason.STOP and ids:
                delta.matched_stop.token_id = ids[-1]
        delta.text = text
        delta.finish_reason = self.finish_reason
        if self._messages is not None:
            delta.tokens.extend(self._messages.known())
        if self.is_finished:
            metrics.finished.labels(
                pb.FinishReason.Name(self.finish_reason).removeprefix("FINISH_REASON_").lower()
            ).inc()
        return delta if text or delta.tokens or self.is_finished else None

    def _read(self, output: CandidateOutput) -> tuple[str, str | None, int]:
        """Text that may be sent, the stop string found, and how many tokens it took.

        Outputs that were joined on their way may go on past a stop string; token by token nothing of that is shown,
        so an answer does not depend on how busy the server is.
        """
        ids = output.token_ids
        end = len(ids) - 1 if output.finish_reason in (FinishReason.EOS, FinishReason.STOP) else len(ids)
        text = ""
        for place, token_id in enumerate(ids):
            if self._messages is not None:
                self._messages.add(output, place, self._stream)
            if place == end or token_id in self._special:
                if self._messages is not None:
                    self._messages.name(self._stream)
                continue
            new, matched = self._matcher.push(self._taken(self._stream.push([token_id])))
            text += new
            if matched is not None:
                return text, matched, place + 1
        return text, None, len(ids)

    def _taken(self, pieces: list[Piece]) -> str:
        """The text of pieces, which the messages of their tokens get too."""
        if self._messages is not None:
            self._messages.take(pieces)
        return "".join(piece.text for piece in pieces)

    def observe(self, came: float, count: int, metrics: Metrics) -> None:
        """Note when the engine's last ``count`` tokens came."""
        if self.tokens > count > 0:
            metrics.inter_token.observe((came - self._last_time) / count)
        self._last_time = came


@dataclass(slots=True)
class UsageCount:
    """Counts of one request as its outputs pass."""

    arrival: float
    usage: RequestUsage = field(default_factory=lambda: RequestUsage(prompt_tokens=0))
    generated: int = 0

    def add(self, output: CandidateOutput, tokens: int) -> None:
        """Take over what the engine says, and how many of its tokens belong to the answer."""
        self.generated += tokens
        if output.usage is not None:
            self.usage = output.usage

    def message(self, prompt_tokens: int) -> pb.Usage:
        """The usage so far."""
        return pb.Usage(
            prompt_tokens=prompt_tokens,
            cached_tokens=self.usage.cached_tokens,
            generated_tokens=self.generated,
            queue_seconds=self.usage.queue_seconds,
            first_token_seconds=self.usage.first_token_seconds,
            total_seconds=time.monotonic() - self.arrival,
        )

    def count(self, prompt_tokens: int, metrics: Metrics) -> None:
        """Add the request to the metrics."""
        metrics.prompt_tokens.inc(prompt_tokens)
        metrics.cached_tokens.inc(self.usage.cached_tokens)
        metrics.generated_tokens.inc(self.generated)
        if self.generated:
            metrics.first_token.observe(self.usage.first_token_seconds)
            metrics.queue.observe(self.usage.queue_seconds)
