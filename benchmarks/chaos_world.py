"""What a chaos run knows: what each request answers alone, which faults were on when, and what became of every call."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import traffic
from traffic import Answer, Case, cases

from ift_serve.client import AsyncClient, Prompt, ServerError

PATIENCE, UNREAD = 15.0, 5.0
"""Seconds after which the server takes its engine for hung, and a stream for unread."""
_AFTER = 20.0
"""Seconds after a fault in which calls may be told of it: another engine is started meanwhile."""
_GRACE = 30.0
"""Seconds beside those that a call may take, after which one without any outcome is one that hangs."""
_CASES_OF_ADAPTERS = 4
_LONG = {"max_new_tokens": 300, "n": 4, "seed": 5, "temperature": 0.7, "ignore_eos": True}
"""What slow readers ask for: with statistics and alternatives more than gRPC takes ahead of them."""


@dataclass(slots=True)
class Fault:
    """One fault. ``end``: None while it lasts; ``recovered``: seconds until another call was answered right."""

    kind: str
    begin: float
    end: float | None = None
    recovered: float | None = None
    told: dict[str, Any] = field(default_factory=dict)


class World:
    """``client`` is of role generate, ``admin`` of role admin. Both go over the network that loses packets."""

    def __init__(self, client: AsyncClient, admin: AsyncClient, front: int, disk: Path, seed: int) -> None:
        self.client, self.admin = client, admin
        self.front, self.disk = front, disk
        self.hang = traffic.TIMEOUT + _GRACE
        self.rng = random.Random(seed)
        self.faults: list[Fault] = []
        self.outcomes: Counter[str] = Counter()
        self.problems: list[str] = []
        self.known: list[tuple[Case, Answer]] = []
        self.adapted: dict[tuple[int, str], Answer] = {}
        self.versions: dict[str, list[str]] = {}
        self.admin_asked = self.admin_told = 0

    async def learn(self, count: int, versions: dict[str, list[str]], seed: int) -> None:
        """What everything answers alone, twice."""
        vocabulary = (await self.client.model()).vocabulary_size
        for number, case in enumerate(cases(count, vocabulary, seed)):
            first, second = await case.ask(self.client), await case.ask(self.client)
            if first != second:
                self.problems.append(f"wrong: case {number} differs between two solo runs")
            self.known.append((case, first))
        long = Case(self.known[0][0].prompt, _LONG)
        self._long = (long, await long.ask(self.client))
        self.versions = versions
        for name, paths in versions.items():
            for path in paths:
                await self.administer(self.admin.load_adapter(name, path))
                for number in range(_CASES_OF_ADAPTERS):
                    answer = await self.known[number][0].ask(self.client, adapter=name)
                    self.adapted[number, answer.adapter] = answer

    async def administer(self, call: Any) -> Any:
        """A call of the administrator's, counted: the audit log must have a line for each that was answered."""
        self.admin_asked += 1
        try:
            found = await call
        except ServerError as error:
            if error.request_id:
                self.admin_told += 1
            raise
        self.admin_told += 1
        return found

    def struck(self, begun: float, *kinds: str) -> bool:
        """Whether a fault of one of the kinds was on, or just over, while a call ran that began then and ends now."""
        now = time.monotonic()
        return any(
            fault.kind in kinds and fault.begin <= now and begun <= (fault.end or now) + _AFTER for fault in self.faults
        )

    def refused(self, error: ServerError, begun: float, *, adapter: bool) -> None:
        """A call that ended with a status: a documented one, for a reason that there was, or a problem."""
        code = error.code
        if code == "UNAVAILABLE" and self.struck(begun, "engine killed", "engine hung", "packets lost"):
            self.outcomes["unavailable while a fault was on"] += 1
        elif code == "RESOURCE_EXHAUSTED" and error.retry_after:
            self.outcomes["told to come back"] += 1
        elif code == "NOT_FOUND" and adapter and self.struck(begun, "disk full", "engine killed", "engine hung"):
            self.outcomes["adapter lost by a restart, and said to be"] += 1
        else:
            self.problems.append(f"lost: {code} {error} after {time.monotonic() - begun:.1f} s")

    async def one(self, way: Any) -> None:
        """A call of whatever kind: it ends, and is accounted for."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self.hang):
                await way()
        except ServerError as error:
            self.refused(error, begun, adapter=way == self.ask_adapter)
        except TimeoutError:
            self.problems.append(f"hang: a call had no outcome within {self.hang:g} s")
        except Exception as error:
            self.problems.append(f"client: raised {error!r}"[:400])

    async def ask_whole(self) -> None:
        """An answer in one message."""
        await self._ask(stream=False)

    async def ask_stream(self) -> None:
        """The same in pieces."""
        await self._ask(stream=True)

    async def _ask(self, *, stream: bool) -> None:
        case, answer = self.rng.choice(self.known)
        self._compare(await case.ask(self.client, stream=stream), answer, "streamed" if stream else "whole")

    def _compare(self, got: Answer, answer: Answer | None, how: str) -> None:
        if got == answer:
            self.outcomes[f"right, {how}"] += 1
        else:
            self.problems.append(f"wrong: {how}: {got} instead of {answer}"[:600])

    async def ask_adapter(self) -> None:
        """Of whatever version the name has now; the answer says which."""
        number, name = self.rng.randrange(_CASES_OF_ADAPTERS), self.rng.choice(list(self.versions))
        got = await self.known[number][0].ask(self.client, adapter=name, stream=self.rng.random() < 0.5)
        self._compare(got, self.adapted.get((number, got.adapter)), "adapted")

    def _generation(self) -> tuple[Case, Answer]:
        return self.rng.choice([(case, answer) for case, answer in self.known if not case.continuations])

    async def leave(self) -> None:
        """Leave in the middle: what had come begins the answer."""
        case, answer = self._generation()
        said = await case.leave_early(self.client, self.rng.randint(1, 12))
        if all(tuple(s) == whole[: len(s)] for s, whole in zip(said, answer.tokens, strict=True)):
            self.outcomes["left early, right so far"] += 1
        else:
            self.problems.append(f"wrong: left early: {said} of {answer.tokens}"[:600])

    async def be_late(self) -> None:
        """Have too little time."""
        case, answer = self._generation()
        try:
            whole = await self.client.generate(
                Prompt.from_tokens(case.prompt), tokens=True, timeout=self.rng.uniform(0.005, 0.3), **case.sampling
            )
        except ServerError as error:
            if error.code != "DEADLINE_EXCEEDED":
                raise
            self.outcomes["deadline passed, and said so"] += 1
            return
        parts = zip(whole.candidates, answer.tokens, strict=True)
        if all(tuple(t.token_id for t in c.tokens) == tokens[: len(c.tokens)] for c, tokens in parts):
            self.outcomes["within its deadline, right so far"] += 1
        else:
            self.problems.append("wrong: an answer cut by its deadline does not begin the whole one")

    async def read_slowly(self, seconds: float) -> None:
        """Read nothing for so long: the whole answer in the end, or ABORTED."""
        case, answer = self._long
        options = case.sampling | {"tokens": True, "statistics": True, "top_alternatives": 20, "timeout": self.hang}
        stream = self.client.stream(Prompt.from_tokens(case.prompt), **options)
        await anext(aiter(stream), None)
        await asyncio.sleep(seconds)
        try:
            whole = await stream.result()
        except ServerError as error:
            if error.code != "ABORTED":
                raise
            self.outcomes["unread stream ended, and said so"] += 1
            return
        got = tuple(tuple(t.token_id for t in c.tokens) for c in whole.candidates)
        if got == answer.tokens:
            self.outcomes["right, read slowly"] += 1
        else:
            self.problems.append(f"wrong: read slowly: {got} instead of {answer.tokens}"[:600])
