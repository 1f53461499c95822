"""Carries out what a strategy decides about the sequences of its request."""

from __future__ import annotations

from typing import cast

import msgspec

from ift_serve.engine.core.request import Generation
from ift_serve.engine.core.sequence import Sequence
from ift_serve.engine.core.step import SampledToken
from ift_serve.engine.core.strategy import HIDDEN, Branch
from ift_serve.engine.protocol.generate import SamplingParams, TokenStatistics
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.engine.scheduling.scheduler import Scheduler

FORCED = TokenStatistics(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Statistics of a forced token: no drawn token has p1 = 0."""


class RequestControl:
    """The ``Control`` of one request."""

    def __init__(self, request: Generation, scheduler: Scheduler) -> None:
        self._request = request
        self._scheduler = scheduler

    @property
    def sampling(self) -> SamplingParams:
        return self._request.sampling

    @property
    def live(self) -> list[Branch]:
        return list(self._request.live)

    def fork(self, branch: Branch, *, candidate: int = HIDDEN, replace_last: int | None = None) -> Branch:
        parent = cast(Sequence, branch)
        request = self._request
        if request.done:
            raise ValueError("fork: the request has ended")
        if parent.generated_count and not request.strategy.records:
            raise ValueError("fork: only a strategy that records may fork after the first token")
        child = request.branch(parent, self._scheduler.next_number())
        child.candidate = candidate
        if replace_last is not None:
            if not child.generated_count:
                raise ValueError("fork: no generated token to replace")
            child.tokens[-1] = replace_last
            self._replace_record(child, replace_last)
        if candidate != HIDDEN:
            request.unsent.append(child)
        self._scheduler.fork(parent, child)
        return child

    def _replace_record(self, child: Sequence, token_id: int) -> None:
        """The last token's statistics, with the log-probability of the token that took its place if known."""
        last = child.record[-1]
        log_prob = dict(last.top_log_probs).get(token_id)
        statistics = FORCED
        if log_prob is not None:
            statistics = msgspec.structs.replace(last.statistics, log_prob=log_prob)
        child.record[-1] = SampledToken(token_id, statistics, last.top_log_probs)
        child.statistics[-1] = statistics

    def force(self, branch: Branch, token_ids: list[int], *, replace_last: bool = False) -> None:
        sequence = cast(Sequence, branch)
        request = self._request
        if sequence.ended is not None:
            raise ValueError("force: the sequence has ended")
        if not token_ids:
            raise ValueError("force: no tokens given")
        if replace_last and sequence.pending:
            raise ValueError("force: a sibling's last token cannot be replaced while the step that uses it ends")
        if replace_last:
            sequence.take_back_last(request.strategy.records)
            sequence.overridden = True
        for token_id in token_ids[: request.length_limit - len(sequence.tokens)]:
            sequence.append(SampledToken(token_id, FORCED, []), request.strategy.records)
        if sequence.candidate != HIDDEN and sequence not in request.unsent:
            request.unsent.append(sequence)

    def stop(self, branch: Branch, reason: FinishReason = FinishReason.STOP) -> None:
        sequence = cast(Sequence, branch)
        if sequence.ended is None:
            self.end(sequence, reason)

    def end(self, sequence: Sequence, reason: FinishReason) -> None:
        """End a live sequence: its blocks are free, what it has not sent yet goes out with the reason."""
        request = self._request
        sequence.ended = reason
        request.live.remove(sequence)
        self._scheduler.remove(sequence)
        if sequence.candidate != HIDDEN and sequence not in request.unsent:
            request.unsent.append(sequence)

    def finish(self, reason: FinishReason = FinishReason.STOP) -> None:
        for sequence in list(self._request.live):
            self.end(sequence, reason)
        self._request.finish_reason = reason

    def reveal(self, branch: Branch, candidate: int) -> None:
        sequence = cast(Sequence, branch)
        if sequence.candidate != HIDDEN:
            raise ValueError("reveal: the sequence is a candidate already")
        sequence.candidate = candidate
        self._request.unsent.append(sequence)

    def set_temperature(self, branch: Branch, temperature: float) -> None:
        row = cast(Sequence, branch).row
        if row is not None:
            row.temperature = temperature
