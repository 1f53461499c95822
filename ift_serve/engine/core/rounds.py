"""Tells strategies what their sequences have drawn, in rounds, and ends requests as they conclude."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter

from ift_serve.engine.core.control import RequestControl
from ift_serve.engine.core.request import Generation, Request
from ift_serve.engine.core.strategy import HIDDEN, LimitError
from ift_serve.engine.protocol.results import FailureKind, FinishReason
from ift_serve.engine.scheduling.scheduler import Scheduler
from ift_serve.engine.sequences.judged_tokens import probability
from ift_serve.engine.sequences.sequence import Sequence
from ift_serve.engine.sequences.step import SampledToken, ScoredTokens

_log = logging.getLogger(__name__)
_SLOW_SECONDS = 0.05
"""A callback that takes longer is counted: all requests of the step wait for it."""
_LONGEST_SECONDS, _LONGEST_WAIT = 1.0, 10.0
"""A request fails whose callback computes longer, or takes longer: one that computes little and takes a second has not
got a processor, which is the machine's fault."""


class SlowStrategyError(Exception):
    """A callback has taken more time than other requests can be made to wait."""


class Rounds:
    """The strategies of all requests. ``close`` and ``fail`` end a request in the core.

    ``busy``: seconds that this thread has computed. ``seconds``: time spent in callbacks; ``slow_callbacks``: how many
    took longer than 50 ms.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        close: Callable[[Request], None],
        fail: Callable[[Request, FailureKind, str], None],
        clock: Callable[[], float] = time.perf_counter,
        busy: Callable[[], float] = time.thread_time,
    ) -> None:
        self._scheduler = scheduler
        self._close = close
        self._fail = fail
        self._clock = clock
        self._busy = busy
        self.seconds = 0.0
        self.slow_callbacks = 0

    def _control(self, request: Generation) -> RequestControl:
        return RequestControl(request, self._scheduler)

    def advance(self, request: Generation) -> None:
        """Tell the strategy of a complete round; have its sequences wait for an incomplete one."""
        if request.done:
            return
        if not request.round_complete:
            for sequence in request.drawn:
                self._scheduler.pause(sequence)
            return
        with self._guarded(request):
            for sequence in sorted(request.drawn, key=attrgetter("ordinal")):
                if request.done or request.concluded:
                    break
                drawn = request.drawn.pop(sequence, None)
                if drawn is None:
                    continue
                self._scheduler.resume(sequence)
                if isinstance(drawn, SampledToken):
                    self._tell(sequence, drawn)
                else:
                    self._tell_scores(sequence, drawn)
            if request.spent + len(request.live) > request.limits.total_tokens:
                raise LimitError("total_tokens", f"another round would exceed {request.limits.total_tokens} tokens")
        self._close_if_over(request)

    def accept(self, sequence: Sequence, token: SampledToken) -> None:
        """A token that no strategy is told of."""
        request = sequence.owner
        assert isinstance(request, Generation)
        reason = self._append(sequence, token, request)
        if reason is not None:
            self._control(request).end(sequence, reason)
        self._close_if_over(request)

    def stopped(self, sequence: Sequence) -> None:
        """A candidate was ended by the server process, which found a stop string."""
        request = sequence.owner
        assert isinstance(request, Generation)
        if not request.is_passive:
            with self._guarded(request), self._timed():
                request.told.on_end(self._control(request), sequence, FinishReason.STOP)
        if request.live and not request.done and request.drawn and request.round_complete:
            self.advance(request)
        else:
            self._close_if_over(request)

    def conclude(self, request: Generation, reason: FinishReason) -> None:
        """End a request whose time or limits are over; its strategy decides with what."""
        try:
            self._conclude(request, reason)
        except Exception:
            self._failed(request)
            return
        if not request.done:
            self._close(request)

    def _conclude(self, request: Generation, reason: FinishReason) -> None:
        request.concluded = True
        with self._timed():
            request.told.conclude(self._control(request), reason)
        self._control(request).finish(reason)

    def _append(self, sequence: Sequence, token: SampledToken, request: Generation) -> FinishReason | None:
        sequence.append(token, request.strategy.records)
        sequence.constrain()
        if sequence.candidate != HIDDEN and sequence not in request.unsent:
            request.unsent.append(sequence)
        return request.end_reason(token.token_id, len(sequence.tokens))

    def _tell(self, sequence: Sequence, token: SampledToken) -> None:
        request = sequence.owner
        assert isinstance(request, Generation)
        strategy, control = request.told, self._control(request)
        reason = self._append(sequence, token, request)
        with self._timed():
            strategy.on_token(control, sequence, token, reason)
        if sequence.overridden or reason is None:
            sequence.overridden = False
            reason = FinishReason.LENGTH if len(sequence.tokens) >= request.length_limit else None
        if reason is not None and sequence.ended is None:
            control.end(sequence, reason)
            with self._timed():
                strategy.on_end(control, sequence, reason)

    def _tell_scores(self, sequence: Sequence, scored: ScoredTokens) -> None:
        request = sequence.owner
        assert isinstance(request, Generation)
        strategy, control = request.told, self._control(request)
        control.end(sequence, FinishReason.STOP)
        with self._timed():
            if sequence.judged is None:
                strategy.on_score(control, sequence, scored.log_probs)
            else:
                strategy.on_judged(control, sequence, probability(sequence.judged.logit()))

    @contextmanager
    def _guarded(self, request: Generation) -> Iterator[None]:
        """What a strategy raises ends its request alone: at its limits it concludes, otherwise it fails."""
        try:
            yield
        except LimitError:
            self.conclude(request, FinishReason.LENGTH)
        except Exception:
            self._failed(request)

    def _failed(self, request: Generation) -> None:
        _log.exception("strategy %s failed", type(request.strategy).__name__)
        self._fail(request, FailureKind.INTERNAL, "the decoding strategy failed")

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started, busy = self._clock(), self._busy()
        yield
        seconds, computed = self._clock() - started, self._busy() - busy
        self.seconds += seconds
        if seconds > _SLOW_SECONDS:
            self.slow_callbacks += 1
        if seconds > _LONGEST_WAIT or computed > _LONGEST_SECONDS:
            raise SlowStrategyError(f"a callback took {seconds:.1f} s")

    def _close_if_over(self, request: Generation) -> None:
        if not request.live and not request.done:
            self._close(request)
