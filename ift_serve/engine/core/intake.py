"""Takes requests in: whether they can be carried out, with which strategy and form, and when they start."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import count

import msgspec

from ift_serve.engine.adapters.registry import AdapterRegistry
from ift_serve.engine.adapters.version import AdapterVersion
from ift_serve.engine.core.limits import RequestValidator
from ift_serve.engine.core.request import Generation, Request, Scoring
from ift_serve.engine.core.returning import Returning
from ift_serve.engine.core.strategy import ConstraintFactory, Strategies, Strategy
from ift_serve.engine.core.timeline_recorder import TimelineRecorder
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engine.scheduling.completion_rate import CompletionRate
from ift_serve.engine.scheduling.scheduler import Scheduler
from ift_serve.sharing.places import Places

_log = logging.getLogger(__name__)


class Intake:
    """Requests on their way to the scheduler. ``rate``: by which callers are told when to come back.

    A request whose answer has a form waits, holding a place, until the form has been read; one whose adapter left host
    memory, until it is there again.
    """

    def __init__(
        self,
        model: ModelDescription,
        validator: RequestValidator,
        strategies: Strategies,
        constraints: ConstraintFactory,
        adapters: AdapterRegistry,
        scheduler: Scheduler,
        places: Places,
        rate: CompletionRate,
        max_waiting: int,
        clock: Callable[[], float],
    ) -> None:
        self._model = model
        self._validator = validator
        self._strategies = strategies
        self._constraints = constraints
        self._adapters = adapters
        self._scheduler = scheduler
        self._places = places
        self._rate = rate
        self._max_waiting = max_waiting
        self._clock = clock
        self._numbers = count()
        self._preparing: list[Generation] = []
        self._returning: list[Returning] = []

    def open(self, message: GenerateRequest | ScoreRequest) -> Generation | Scoring | Returning:
        """A request that waits to be scheduled, or for its adapter; one that has nothing to compute is done.

        Raises RefusedError.
        """
        adapter = self._adapters.resolve(message.adapter)
        self._validator.check(message, () if adapter is None else adapter.metadata.components)
        places = self._places
        if not places.has_room(message.client):
            soon = self._rate.seconds_for(self._max_waiting / 4)
            text = f"{places.held(message.client)} requests of this caller and {places.taken} of all wait already"
            raise RefusedError(FailureKind.OVERLOADED, text, "", soon)
        now = self._clock()
        if message.deadline is not None and message.deadline <= now:
            raise RefusedError(FailureKind.DEADLINE, "the deadline had passed on arrival")
        if adapter is not None and not adapter.is_resident:
            return self._open_returning(message, adapter, now)
        return self._open(message, adapter, now)

    def _open(
        self, message: GenerateRequest | ScoreRequest, adapter: AdapterVersion | None, now: float
    ) -> Generation | Scoring:
        if isinstance(message, GenerateRequest):
            return self._open_generation(message, adapter, now)
        return self._open_scoring(message, adapter, now)

    def _open_returning(
        self, message: GenerateRequest | ScoreRequest, adapter: AdapterVersion, now: float
    ) -> Returning:
        account = self._scheduler.accounts.open(message.client, has_waiting=self._places.held(message.client) > 0)
        request = Returning(message, next(self._numbers), account, now, adapter)
        self._hold(request)
        self._returning.append(request)
        return request

    def take_returned(self) -> list[Returning]:
        """Requests whose adapters are in host memory again; each is to be given to ``reopen``."""
        if not self._returning:
            return []
        waiting = [request for request in self._returning if not request.done]
        self._returning = [request for request in waiting if not request.version.is_resident]
        return [request for request in waiting if request.version.is_resident]

    def reopen(self, request: Returning) -> Generation | Scoring:
        """The request that ``request`` stood for, on the same version and in its place. Raises RefusedError."""
        request.done = True
        self._scheduler.withdraw(request)
        try:
            opened = self._open(request.message, request.version, self._clock())
            if opened.timeline is not None:
                opened.timeline.return_adapter()
            return opened
        finally:
            self._scheduler.accounts.close(request.account)
            self._adapters.leave(request.version)

    @property
    def returning(self) -> int:
        """Requests that wait for their adapters."""
        return sum(not request.done for request in self._returning)

    @property
    def preparing(self) -> int:
        """Requests whose forms are being read."""
        return sum(not request.done for request in self._preparing)

    def _open_generation(self, message: GenerateRequest, adapter: AdapterVersion | None, now: float) -> Generation:
        # The strategy knows the version that answers, which may differ from the newest of its name later.
        named = message if adapter is None else msgspec.structs.replace(message, adapter=adapter.key)
        strategy = self._make_strategy(named)
        self._validator.check_strategy(message, strategy.width, strategy.extra_tokens)
        ends = {*self._model.eos_ids, *message.end_ids, *(adapter.metadata.end_ids if adapter is not None else ())}
        constraint = self._constraints(message, () if message.sampling.ignore_eos else sorted(ends))
        # Nothing is refused from here on: the account is open.
        account = self._scheduler.accounts.open(message.client, has_waiting=self._places.held(message.client) > 0)
        request = Generation(message, next(self._numbers), account, now, strategy, adapter)
        if message.traced:
            request.timeline = TimelineRecorder(request.arrival, self._clock)
        request.set_limits(list(ends), self._model.context_length, self._model.vocabulary_size)
        request.constraint = constraint
        self._hold(request)
        if constraint is None:
            self._start(request)
        else:
            self._preparing.append(request)
        return request

    def _open_scoring(self, message: ScoreRequest, adapter: AdapterVersion | None, now: float) -> Scoring:
        account = self._scheduler.accounts.open(message.client, has_waiting=self._places.held(message.client) > 0)
        request = Scoring(message, next(self._numbers), account, now, adapter)
        if request.width:
            self._hold(request)
            self._start(request)
        else:
            request.done = True
            self._scheduler.accounts.close(account)
        return request

    def _hold(self, request: Request) -> None:
        if request.adapter is not None:
            self._adapters.use(request.adapter)
        self._scheduler.hold(request)

    def _start(self, request: Request) -> None:
        request.start(self._scheduler.next_number())
        self._scheduler.enqueue(request)

    def start_prepared(self) -> Iterator[tuple[Generation, str]]:
        """Begin with the requests whose forms have been read; yields those whose forms cannot be, and why.

        A form can take long, and nobody waits for it.
        """
        preparing, self._preparing = self._preparing, []
        for request in preparing:
            assert request.constraint is not None
            if request.done:
                continue
            if not request.constraint.is_ready:
                self._preparing.append(request)
            elif why := request.constraint.error():
                yield request, why
            else:
                if request.timeline is not None:
                    request.timeline.read_form()
                self._start(request)

    def _make_strategy(self, message: GenerateRequest) -> Strategy:
        factory = self._strategies.get(message.strategy)
        if factory is None:
            known = ", ".join(sorted(self._strategies))
            text = f"strategy: {message.strategy!r} is unknown; there are {known}"
            raise RefusedError(FailureKind.INVALID, text, "strategy")
        try:
            return factory(message)
        except RefusedError:
            raise
        except Exception:
            _log.exception("strategy %s cannot be made", message.strategy)
            raise RefusedError(FailureKind.INTERNAL, "the decoding strategy failed", "strategy") from None
