"""Engine outputs to the candidates that callers read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ift_serve.engine.messages import CandidateOutput, FinishReason, RequestUsage
from ift_serve.server.metrics import Metrics
from ift_serve.text import IncrementalDetokenizer, StopMatcher
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
        self.index = index
        self.tokens = 0
        self.finish_reason: pb.FinishReason.ValueType = pb.FINISH_REASON_UNSPECIFIED
        self._tokenizer = tokenizer.backend_tokenizer
        self._detokenizer = IncrementalDetokenizer(tokenizer)
        self._matcher = StopMatcher(stop)
        self._has_stop = bool(stop)
        self._wanted = wanted
        self._last_time = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether nothing more of it is to be sent."""
        return self.finish_reason != pb.FINISH_REASON_UNSPECIFIED

    def add(self, output: CandidateOutput, metrics: Metrics) -> pb.CandidateDelta | None:
        """What is new for the caller; None where nothing can be sent yet."""
        ids, reason = output.token_ids, output.finish_reason
        delta = pb.CandidateDelta(index=self.index)
        ends_by_token = bool(ids) and reason in (FinishReason.EOS, FinishReason.STOP)
        text, matched, used = self._read(ids[:-1] if ends_by_token else ids)
        if matched is None:
            used = len(ids)
            if reason is not None:
                rest, matched = self._matcher.push(self._detokenizer.flush())
                text += rest
        self._observe(used, metrics)
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
        if self._wanted.tokens:
            delta.tokens.extend(self._token(output, place) for place in range(used))
        if self.is_finished:
            metrics.finished.labels(
                pb.FinishReason.Name(self.finish_reason).removeprefix("FINISH_REASON_").lower()
            ).inc()
        return delta if text or delta.tokens or self.is_finished else None

    def _read(self, ids: list[int]) -> tuple[str, str | None, int]:
        """Text that may be sent, the stop string found, and how many tokens it took.

        Outputs that were joined on their way may go on past a stop string; token by token nothing of that is shown,
        so an answer does not depend on how busy the server is.
        """
        if not self._has_stop:
            return self._detokenizer.push(ids), None, len(ids)
        text = ""
        for place, token_id in enumerate(ids, 1):
            new, matched = self._matcher.push(self._detokenizer.push([token_id]))
            text += new
            if matched is not None:
                return text, matched, place
        return text, None, len(ids)

    def _observe(self, count: int, metrics: Metrics) -> None:
        now = time.monotonic()
        if self.tokens and count:
            metrics.inter_token.observe((now - self._last_time) / count)
        self._last_time = now
        self.tokens += count

    def _token(self, output: CandidateOutput, place: int) -> pb.Token:
        statistics = output.statistics[place]
        token = pb.Token(
            token_id=output.token_ids[place], text=self._piece(output.token_ids[place]), log_prob=statistics.log_prob
        )
        if output.top_log_probs:
            for token_id, log_prob in output.top_log_probs[place]:
                token.alternatives.add(token_id=token_id, text=self._piece(token_id), log_prob=log_prob)
        if self._wanted.statistics:
            token.statistics.p1 = statistics.p1
            token.statistics.p2 = statistics.p2
            token.statistics.entropy = statistics.entropy
            token.statistics.mean_top20_log_prob = statistics.mean_top20_log_prob
            token.statistics.temperature = statistics.temperature
        return token

    def _piece(self, token_id: int) -> str:
        return str(self._tokenizer.decode([token_id], skip_special_tokens=False))


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
