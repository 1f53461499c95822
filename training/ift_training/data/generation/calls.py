"""Asks servers: a queue that is kept full, answers that are kept, and results in the order of asking."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from ift_serve.client import AsyncClient, Message, Prompt, ServerError
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.outcomes import Answer, Failure
from ift_serve.evaluation.serving.request_runner import RequestRunner
from ift_serve.evaluation.serving.requests import Generation
from ift_serve.evaluation.serving.served_model import ServedModel, pinned
from ift_training.data.generation.errors import GenerationError
from ift_training.data.generation.record import Turn
from ift_training.data.generation.settings import Role
from ift_training.data.generation.store import RecordStore

_LASTING = frozenset({"INVALID_ARGUMENT", "MALFORMED"})
"""Failures that are the request's own, so that asking again would fail again; all others end the run."""
_TaskT = TypeVar("_TaskT")
_ResultT = TypeVar("_ResultT")
Connect = Callable[[str], AsyncClient]
"""A client of a server by its address; the empty address is the run's own server."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """A model and adapter version that answer in one role, fixed when the run begins."""

    runner: RequestRunner
    served: ServedModel
    settings: DecodingSettings
    style: str
    seed: int

    @property
    def model(self) -> str:
        """Fingerprint of the model."""
        return self.served.info.fingerprint

    @property
    def adapter(self) -> str:
        """``name@version``, empty for the base model."""
        return self.settings.adapter

    async def say(
        self, text: str, repeat: int = 0, *, history: tuple[Turn, ...] = (), context: str = ""
    ) -> Answer | None:
        """The answer to a text, as an instruction or as raw text by the role's style; None where the server refuses it.

        repeat: which of several answers to one text. Raises GenerationError where the server cannot answer at all.
        """
        request = Generation(self._prompt(text, history, context), self.settings, self.seed, repeat)
        (outcome,) = await self.runner.outcomes(request)
        if isinstance(outcome, Answer):
            return outcome
        if isinstance(outcome, Failure) and outcome.code in _LASTING:
            return None
        raise GenerationError(f"the server stopped answering ({outcome}); run the same command again to go on")

    def _prompt(self, text: str, history: tuple[Turn, ...], context: str) -> Prompt:
        if self.style == "text":
            return Prompt.from_text(text)
        if history:
            said = [Message(turn.role, turn.content) for turn in history]
            return Prompt.from_messages([*said, Message("user", text, context)])
        return Prompt(instruction=text, context=context)


class _Server(NamedTuple):
    """A server that was asked what it serves."""

    client: AsyncClient
    served: ServedModel
    runner: RequestRunner


class Servers:
    """The servers of a run, each asked once what it serves. Closes its clients."""

    def __init__(self, connect: Connect, store: RecordStore, seed: int, timeout: float, attempts: int = 8) -> None:
        self._connect = connect
        self._store = store
        self._seed = seed
        self._timeout = timeout
        self._attempts = attempts
        self._opened: dict[str, _Server] = {}

    async def speaker(self, role: Role) -> Speaker:
        """Who speaks in a role. Raises GenerationError where its server or adapter is not there."""
        try:
            server = await self._open(role.server)
            settings = await pinned(server.client, DecodingSettings.read(role.decoding).with_adapter(role.adapter))
        except (ServerError, EvaluationError, ValueError) as error:
            raise GenerationError(f"{role.server or 'server'}: {error}") from error
        return Speaker(server.runner, server.served, settings, role.style, self._seed)

    async def _open(self, address: str) -> _Server:
        if address not in self._opened:
            client = self._connect(address)
            try:
                served = await ServedModel.of(client)
            except BaseException:
                await client.close()
                raise
            runner = RequestRunner(client, served, self._store.calls, timeout=self._timeout, attempts=self._attempts)
            self._opened[address] = _Server(client, served, runner)
        return self._opened[address]

    def totals(self) -> tuple[int, int, int]:
        """Tokens of prompts and of answers that this run paid for, and answers that were there from an earlier one."""
        found = [opened.runner.totals for opened in self._opened.values()]
        return sum(t.prompt_tokens for t in found), sum(t.generated_tokens for t in found), sum(t.kept for t in found)

    async def __aenter__(self) -> Servers:
        return self

    async def __aexit__(self, *_: object) -> None:
        for opened in self._opened.values():
            await opened.client.close()


async def in_order(
    tasks: Iterable[_TaskT],
    ask: Callable[[_TaskT], Callable[[], Awaitable[_ResultT]]],
    take: Callable[[_TaskT, _ResultT], bool],
    width: int,
) -> None:
    """Ask about each task, ``width`` at once, and take the results in the order of the tasks until ``take`` is False.

    ``ask(task)`` runs when the result ``width`` tasks before has been taken, and none later, however fast answers come:
    so what it sees depends on the order and the width alone. It gives the function that then waits for the answer.
    """
    pending: deque[tuple[_TaskT, asyncio.Task[_ResultT]]] = deque()

    async def answered(wait: Callable[[], Awaitable[_ResultT]]) -> _ResultT:
        return await wait()

    try:
        for task in tasks:
            if len(pending) == width:
                first, running = pending.popleft()
                if not take(first, await running):
                    return
            pending.append((task, asyncio.create_task(answered(ask(task)))))
        while pending:
            first, running = pending.popleft()
            if not take(first, await running):
                return
    finally:
        for _, running in pending:
            running.cancel()
        await asyncio.gather(*(running for _, running in pending), return_exceptions=True)
