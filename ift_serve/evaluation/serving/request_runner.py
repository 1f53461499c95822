"""Keeps a server busy: so many requests in flight, tries that are repeated, answers that are kept."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ift_serve.client import AsyncClient, InvalidRequestError, ServerError
from ift_serve.evaluation.serving.asking import Asker
from ift_serve.evaluation.serving.outcomes import Answer, Failure, LogLikelihood, MalformedAnswerError, Outcome
from ift_serve.evaluation.serving.requests import Continuations, Generation, Request, WholeText
from ift_serve.evaluation.serving.result_store import ResultStore
from ift_serve.evaluation.serving.served_model import ServedModel

_RETRIED = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "DEADLINE_EXCEEDED"})
"""Generating and scoring change nothing on a server, so asking again is safe; these codes may be others then."""
_LONGEST_PAUSE = 10.0
_ResultT = TypeVar("_ResultT")

Outcomes = Sequence[Outcome]
"""Of one request: one, or one a continuation."""


@dataclass(slots=True)
class Totals:
    """What a run has cost and met so far. ``kept``: outcomes that were there from an earlier run."""

    asked: int = 0
    kept: int = 0
    failed: int = 0
    retries: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    most_in_flight: int = 0


class RequestRunner:
    """Runs requests of any kinds together, with no barrier between tasks.

    As many tasks of asyncio as requests are in flight, whatever the number of requests. Requests that fail become
    :class:`Failure`; nothing that a request meets ends the run. ``timeout``: seconds for a call; ``attempts``: tries.
    """

    def __init__(
        self,
        client: AsyncClient,
        model: ServedModel,
        store: ResultStore,
        *,
        concurrency: int | None = None,
        timeout: float = 300.0,
        attempts: int = 4,
        first_pause: float = 0.25,
    ) -> None:
        self._asker = Asker(client, model.info.context_length, timeout)
        self._model = model
        self._store = store
        self.concurrency = concurrency or model.concurrency
        self._attempts = attempts
        self._first_pause = first_pause
        self._in_flight = 0
        self.totals = Totals()

    async def run(self, requests: Iterable[Request], done: Callable[[int, Outcomes], None]) -> None:
        """``done`` gets the place of a request and its outcomes, in the order in which they come."""
        numbered = enumerate(requests)

        async def work() -> None:
            for index, request in _shared(numbered):
                done(index, await self.outcomes(request))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.concurrency):
                    group.create_task(work())
        except ExceptionGroup as errors:
            # What is wrong with the run itself, such as a checker that is not installed, not with a request.
            raise errors.exceptions[0] from None

    async def outcomes(self, request: Request) -> Outcomes:
        """What is kept of a request, or what the server says now."""
        self._in_flight += 1
        self.totals.most_in_flight = max(self.totals.most_in_flight, self._in_flight)
        try:
            if isinstance(request, Continuations):
                return await self._continuations(request)
            return [await self._single(request)]
        finally:
            self._in_flight -= 1

    async def _single(self, request: Generation | WholeText) -> Outcome:
        self.totals.asked += 1
        adapter = request.settings.adapter if isinstance(request, Generation) else request.adapter
        identity, described = self._model.identity(adapter), request.described()
        kept = self._store.get(identity, described)
        if kept is not None:
            self.totals.kept += 1
            return kept

        async def ask() -> Answer | LogLikelihood:
            if isinstance(request, Generation):
                return await self._asker.generate(request)
            return await self._asker.score_text(request)

        outcome = await self._tried(ask)
        if isinstance(outcome, Failure):
            self.totals.failed += 1
            return outcome
        self.totals.prompt_tokens += outcome.prompt_tokens
        self.totals.generated_tokens += outcome.generated_tokens if isinstance(outcome, Answer) else 0
        self._store.put(identity, described, outcome)
        return outcome

    async def _continuations(self, request: Continuations) -> Outcomes:
        """One call for all that is not kept."""
        identity, described = self._model.identity(request.adapter), request.described_each()
        found: list[Outcome | None] = [self._store.get(identity, values) for values in described]
        missing = [index for index, outcome in enumerate(found) if outcome is None]
        self.totals.asked += len(found)
        self.totals.kept += len(found) - len(missing)
        if not missing:
            return [outcome for outcome in found if outcome is not None]
        rest = dataclasses.replace(request, continuations=tuple(request.continuations[i] for i in missing))
        scores = await self._tried(lambda: self._asker.score(rest))
        if isinstance(scores, Failure):
            self.totals.failed += len(missing)
            return [scores if outcome is None else outcome for outcome in found]
        self.totals.prompt_tokens += scores[0].prompt_tokens
        for index, score in zip(missing, scores, strict=True):
            found[index] = score
            self._store.put(identity, described[index], score)
        return [outcome for outcome in found if outcome is not None]

    async def _tried(self, ask: Callable[[], Awaitable[_ResultT]]) -> _ResultT | Failure:
        """What a call gives, tried again where that is safe and may help."""
        pause = self._first_pause
        for attempt in range(1, self._attempts + 1):
            self.totals.calls += 1
            try:
                return await ask()
            except ServerError as error:
                if error.code not in _RETRIED or attempt == self._attempts:
                    return Failure(error.code, error.message, error.request_id, attempt)
                wanted = error.retry_after
            except MalformedAnswerError as error:
                return Failure("MALFORMED", str(error), attempts=attempt)
            except (InvalidRequestError, ValueError) as error:
                return Failure("INVALID_ARGUMENT", str(error), attempts=attempt)
            self.totals.retries += 1
            await asyncio.sleep(max(wanted or 0.0, pause) * (1 + random.random() / 4))
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise AssertionError("the last attempt returns")


def _shared(numbered: Iterator[tuple[int, Request]]) -> Iterator[tuple[int, Request]]:
    """What is left of an iterator that several tasks take from."""
    yield from numbered
