"""Carries out what a strategy decides about the sequences of its request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import msgspec

from ift_serve.engine.core.request import Generation
from ift_serve.engine.core.strategy import HIDDEN, Branch, LimitError
from ift_serve.engine.protocol.generate import Conclusion, SamplingParams, TokenStatistics
from ift_serve.engine.protocol.reasoning import RequestLimits
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.engine.scheduling.scheduler import Scheduler
from ift_serve.engine.sequences.sequence import Sequence
from ift_serve.engine.sequences.step import SampledToken

FORCED = TokenStatistics(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, True)
"""Statistics of a forced token."""


class RequestControl:
    """The ``Control`` of one request."""

    def __init__(self, request: Generation, scheduler: Scheduler) -> None:
        self._request = request
        self._scheduler = scheduler

    @property
    def sampling(self) -> SamplingParams:
        return self._request.sampling

    @property
    def limits(self) -> RequestLimits:
        return self._request.limits

    @property
    def live(self) -> list[Branch]:
        return list(self._request.live)

    def room(self, branch: Branch) -> int:
        return self._request.length_limit - len(cast(Sequence, branch).tokens)

    def fork(
        self,
        branch: Branch,
        *,
        candidate: int = HIDDEN,
        replace_last: int | None = None,
        keep: int | None = None,
        is_free: bool = False,
    ) -> Branch:
        parent = cast(Sequence, branch)
        request = self._request
        self._require_open("fork")
        kept = parent.generated_count if keep is None else keep
        if not 0 <= kept <= parent.generated_count:
            raise ValueError(f"fork: {keep} of {parent.generated_count} generated tokens")
        if kept and not request.strategy.records:
            raise ValueError("fork: only a strategy that records may fork after the first token")
        if replace_last is not None and not kept:
            raise ValueError("fork: no generated token to replace")
        self._require_candidate("fork", candidate)
        if request.prompt.length + kept >= request.length_limit:
            raise LimitError("length", f"a fork with {kept} generated tokens has no room for another one")
        if replace_last is not None:
            self._require_tokens(1)
        self._require_sequence()
        child = request.branch(parent, self._scheduler.next_number(), kept)
        if is_free:
            child.free()
        child.candidate = candidate
        if replace_last is not None:
            request.forced_tokens += 1
            child.tokens[-1] = replace_last
            self._replace_record(child, replace_last)
            if child.constraint is not None:
                child.constraint.take_back(1)
                child.constraint.take(replace_last)
                child.constrain()
        if candidate != HIDDEN:
            request.unsent.append(child)
        self._scheduler.fork(parent, child)
        return child

    def _require_open(self, what: str) -> None:
        if self._request.concluded:
            raise ValueError(f"{what}: the request ends")

    def _require_candidate(self, what: str, candidate: int) -> None:
        request = self._request
        if candidate == HIDDEN:
            return
        if not 0 <= candidate < request.sampling.candidates:
            raise ValueError(f"{what}: candidate {candidate} of a request for {request.sampling.candidates}")
        if candidate in request.candidates:
            raise ValueError(f"{what}: candidate {candidate} is another sequence's")
        request.candidates.add(candidate)

    def _require_sequence(self) -> None:
        request, limits = self._request, self._request.limits
        if len(request.live) >= limits.sequences:
            raise LimitError("sequences", f"the request may have {limits.sequences} sequences at once")
        if request.forks >= limits.forks:
            raise LimitError("forks", f"the request may fork {limits.forks} times")
        request.forks += 1

    def _require_tokens(self, count: int) -> None:
        request = self._request
        if request.spent + count > request.limits.total_tokens:
            raise LimitError("total_tokens", f"the request may take {request.limits.total_tokens} tokens")

    def _replace_record(self, child: Sequence, token_id: int) -> None:
        """The last token's statistics, with the log-probability of the token that took its place if known."""
        last = child.record[-1]
        statistics, calibrated = FORCED, None
        place = next((place for place, (other, _) in enumerate(last.top_log_probs) if other == token_id), None)
        if place is not None:
            known = last.statistics
            # That of the drawn token comes first among those after all filters.
            processed = (known.processed[1 + place], *known.processed[1:]) if known.processed else ()
            log_prob = last.top_log_probs[place][1]
            statistics = msgspec.structs.replace(known, log_prob=log_prob, processed=processed)
            calibrated = last.calibrated
        child.record[-1] = SampledToken(token_id, statistics, last.top_log_probs, calibrated)
        child.statistics[-1] = statistics

    def force(self, branch: Branch, token_ids: list[int], *, replace_last: bool = False) -> None:
        sequence = cast(Sequence, branch)
        request = self._request
        self._require_open("force")
        if sequence.ended is not None:
            raise ValueError("force: the sequence has ended")
        if not token_ids:
            raise ValueError("force: no tokens given")
        if replace_last and sequence in request.drawn:
            raise ValueError("force: a token that a sibling has drawn after cannot be replaced")
        if replace_last and not sequence.generated_count:
            raise ValueError("force: no generated token to replace")
        length = len(sequence.tokens) - replace_last + len(token_ids)
        if length > request.length_limit:
            raise LimitError("length", f"{len(token_ids)} forced tokens have no room")
        self._require_tokens(len(token_ids))
        sequence.ahead.clear()
        if request.drawn.pop(sequence, None) is not None:
            self._scheduler.resume(sequence)
        if replace_last:
            sequence.take_back_last(request.strategy.records)
            sequence.overridden = True
        for token_id in token_ids:
            sequence.append(SampledToken(token_id, FORCED, []), request.strategy.records)
        sequence.constrain()
        request.forced_tokens += len(token_ids)
        if sequence.candidate != HIDDEN and sequence not in request.unsent:
            request.unsent.append(sequence)

    def score(self, branch: Branch, token_ids: list[int]) -> Branch:
        parent = cast(Sequence, branch)
        request = self._request
        self._require_open("score")
        if not token_ids:
            raise ValueError("score: no tokens given")
        if len(parent.tokens) + len(token_ids) > request.length_limit:
            raise LimitError("length", f"{len(token_ids)} tokens to score have no room")
        self._require_tokens(len(token_ids))
        self._require_sequence()
        probe = request.probe(parent, self._scheduler.next_number(), token_ids)
        request.forced_tokens += len(token_ids)
        self._scheduler.fork(parent, probe)
        return probe

    def judge(self, branch: Branch, begin: int = 0) -> Branch:
        parent = cast(Sequence, branch)
        request = self._request
        self._require_open("judge")
        if not 0 <= begin < parent.generated_count:
            raise ValueError(f"judge: from {begin} of {parent.generated_count} generated tokens")
        self._require_sequence()
        judge = request.judge(parent, self._scheduler.next_number(), request.prompt.length + begin)
        self._scheduler.fork(parent, judge)
        return judge

    def stop(self, branch: Branch, reason: FinishReason = FinishReason.STOP) -> None:
        sequence = cast(Sequence, branch)
        if sequence.ended is None:
            self.end(sequence, reason)

    def end(self, sequence: Sequence, reason: FinishReason) -> None:
        """End a live sequence: its blocks are free, what it has not sent yet goes out with the reason."""
        request = self._request
        sequence.ended = reason
        if request.timeline is not None:
            request.timeline.end(sequence)
        request.live.remove(sequence)
        request.drawn.pop(sequence, None)
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
        if sequence.is_probe:
            raise ValueError("reveal: a sequence that is scored cannot be shown")
        if candidate == HIDDEN:
            raise ValueError("reveal: which candidate?")
        self._require_candidate("reveal", candidate)
        sequence.candidate = candidate
        self._request.unsent.append(sequence)

    def report(self, conclusion: Conclusion) -> None:
        self._request.conclusion = conclusion

    def set_temperature(self, branch: Branch, temperature: float) -> None:
        sequence = cast(Sequence, branch)
        row = sequence.row
        if row is not None and row.temperature != temperature:
            row.temperature = temperature
            sequence.ahead.clear()

    def forbid(self, branch: Branch, token_ids: Iterable[int] | None) -> None:
        mask = None if token_ids is None else self._request.all_but(token_ids)
        cast(Sequence, branch).forbid(mask)
