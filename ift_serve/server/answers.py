"""Engine outputs to the candidates that callers read."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from ift_serve.engine.protocol.generate import CandidateOutput, Conclusion
from ift_serve.engine.protocol.results import FinishReason, RequestUsage
from ift_serve.server.channels import candidate_text
from ift_serve.server.metrics import Metrics
from ift_serve.server.tokens import TokenMessages
from ift_serve.text import StopMatcher
from ift_serve.text.phases import PhaseState
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
        """From the request's details; alternatives, statistics and processed log-probabilities imply tokens."""
        implied = details.statistics or details.processed_log_probs or details.top_alternatives > 0
        return cls(details.tokens or implied, details.statistics)


class CandidateText:
    """One candidate as it grows: its text, whether it ended and why.

    ``state``: the phases of all candidates before their first token, where thoughts are told apart; stop strings are
    then looked for in the answer only. ``stop_ids``: the tokens that end it with the reason STOP.
    """

    def __init__(
        self,
        index: int,
        tokenizer: Any,
        stop: list[str],
        wanted: Wanted,
        *,
        state: PhaseState | None = None,
        stop_ids: Collection[int] = (),
    ) -> None:
        decoder = TokenDecoder.of(tokenizer)
        self.index = index
        self.tokens = 0
        self.forced_tokens = 0
        self.finish_reason: pb.FinishReason.ValueType = pb.FINISH_REASON_UNSPECIFIED
        self._stop_ids = stop_ids
        self._matcher = StopMatcher(stop)
        self._messages = TokenMessages(decoder, statistics=wanted.statistics) if wanted.tokens else None
        self._text = candidate_text(state, decoder, self._messages)
        self._last_time = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether nothing more of it is to be sent."""
        return self.finish_reason != pb.FINISH_REASON_UNSPECIFIED

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of its thought so far."""
        return self._text.reasoning_tokens

    @property
    def answer_tokens(self) -> int:
        """Tokens of its answer so far, the one that ended it included."""
        return self._text.answer_tokens

    def add(self, output: CandidateOutput, metrics: Metrics) -> pb.CandidateDelta | None:
        """What is new for the caller; None where nothing can be sent yet."""
        reason, ends = output.finish_reason, self._ends_with_token(output)
        delta = pb.CandidateDelta(index=self.index)
        matched, used = self._read(output, delta, len(output.token_ids) - ends)
        if matched is not None or reason is not None:
            matched = self._flush(delta, matched)
        self.tokens += used
        if matched is not None:
            self.finish_reason = pb.FINISH_REASON_STOP
            delta.matched_stop.text = matched
        elif reason is not None:
            delta.text += self._matcher.flush()
            self.finish_reason = FINISH_REASONS[reason]
            if reason is FinishReason.STOP and ends:
                delta.matched_stop.token_id = output.token_ids[-1]
        delta.finish_reason = self.finish_reason
        if self._messages is not None:
            delta.tokens.extend(self._messages.known())
        if self.is_finished:
            self._finish(delta, output.conclusion, metrics)
        return delta if delta.text or delta.reasoning or delta.tokens or self.is_finished else None

    def _ends_with_token(self, output: CandidateOutput) -> bool:
        """Whether the last token ends the candidate and is no part of its text; a strategy may end it behind any."""
        if not output.token_ids:
            return False
        reason = output.finish_reason
        return reason is FinishReason.EOS or (reason is FinishReason.STOP and output.token_ids[-1] in self._stop_ids)

    def _read(self, output: CandidateOutput, delta: pb.CandidateDelta, end: int) -> tuple[str | None, int]:
        """Add text that may be sent; the stop string found, and how many tokens that took.

        Outputs that were joined on their way may go on past a stop string; token by token nothing of that is shown,
        so an answer does not depend on how busy the server is.
        """
        reasoning = answer = ""
        matched: str | None = None
        used = len(output.token_ids)
        for place, token_id in enumerate(output.token_ids):
            if self._messages is not None:
                self._messages.add(output, place, self._text.stream)
            self.forced_tokens += output.statistics[place].forced
            if place == end:
                self._text.end()
                continue
            new = self._text.push(token_id)
            reasoning += new.reasoning
            shown, matched = self._matcher.push(new.answer)
            answer += shown
            if matched is not None:
                used = place + 1
                break
        delta.reasoning, delta.text = reasoning, answer
        return matched, used

    def _flush(self, delta: pb.CandidateDelta, matched: str | None) -> str | None:
        """Add what is left at the end; behind a stop string that is nothing but the messages of its tokens."""
        rest = self._text.flush()
        if self._messages is not None:
            self._messages.end()
        delta.reasoning += rest.reasoning
        if matched is None:
            shown, matched = self._matcher.push(rest.answer)
            delta.text += shown
        return matched

    def _finish(self, delta: pb.CandidateDelta, conclusion: Conclusion | None, metrics: Metrics) -> None:
        metrics.finished.labels(pb.FinishReason.Name(self.finish_reason).removeprefix("FINISH_REASON_").lower()).inc()
        chosen = next((branch for branch in conclusion.branches if branch.chosen), None) if conclusion else None
        if chosen is not None:
            delta.confidence, delta.votes = chosen.confidence, chosen.votes

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

    def message(self, prompt_tokens: int, candidates: Iterable[CandidateText] = ()) -> pb.Usage:
        """The usage so far; the engine's own counts may be behind what has come of the candidates."""
        listed = list(candidates)
        forced = sum(candidate.forced_tokens for candidate in listed)
        return pb.Usage(
            prompt_tokens=prompt_tokens,
            cached_tokens=self.usage.cached_tokens,
            generated_tokens=self.generated,
            queue_seconds=self.usage.queue_seconds,
            first_token_seconds=self.usage.first_token_seconds,
            total_seconds=time.monotonic() - self.arrival,
            reasoning_tokens=sum(candidate.reasoning_tokens for candidate in listed),
            answer_tokens=sum(candidate.answer_tokens for candidate in listed),
            drawn_tokens=max(self.usage.drawn_tokens, self.generated - forced),
            forced_tokens=max(self.usage.forced_tokens, forced),
            sequences=max(self.usage.sequences, len(listed)),
            drafted_tokens=self.usage.drafted_tokens,
            accepted_tokens=self.usage.accepted_tokens,
        )

    def count(self, prompt_tokens: int, metrics: Metrics) -> None:
        """Add the request to the metrics."""
        metrics.prompt_tokens.inc(prompt_tokens)
        metrics.cached_tokens.inc(self.usage.cached_tokens)
        metrics.generated_tokens.inc(self.generated)
        if self.generated:
            metrics.first_token.observe(self.usage.first_token_seconds)
            metrics.queue.observe(self.usage.queue_seconds)
