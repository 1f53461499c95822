"""Calls that Ray's ingress hands to a replica: answered here, or by the replica whose memory holds their adapter."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Protocol

from ift_serve.deploy.ray.call_context import CallContext
from ift_serve.server.body import BodyReader
from ift_serve.server.call_guard import Call, CallGuard, RefusedError
from ift_serve.server.services import Rpc, rpcs


class Routing(Protocol):
    """Where calls that name an adapter go."""

    async def stays(self, adapter: str) -> bool:
        """Whether this replica answers a caller."""

    async def taken(self, adapter: str) -> None:
        """Another replica has handed a call to this one."""

    def forwarded(
        self, rpc: Rpc, body: bytes, context: CallContext, adapter: str, seconds: float | None
    ) -> AsyncGenerator[bytes, None]:
        """What another replica answers. Raises StatusError with the status that the call got there."""


class Calls:
    """Runs the services' rpcs inside the guard. ``largest``: bytes of a request message."""

    def __init__(self, guard: CallGuard, services: Mapping[str, object], largest: int, routing: Routing) -> None:
        self._guard = guard
        self._rpcs = {rpc.path: rpc for rpc in rpcs(services)}
        self._reader = BodyReader(largest)
        self._routing = routing

    async def answers(self, path: str, body: bytes, context: CallContext) -> AsyncGenerator[bytes, None]:
        """The serialised answers of a call. How it ended is in ``context`` then; no error of a call is raised."""
        rpc = self._rpcs[path]
        with contextlib.suppress(RefusedError):
            async with self._guard.call(context, rpc.name, rpc.role, rpc.service) as call:
                request = await self._reader.read(_once(body), rpc.request)
                async with contextlib.aclosing(await self._begun(rpc, request, body, context, call)) as answers:
                    async for answer in answers:
                        yield answer

    async def _begun(
        self, rpc: Rpc, request: Any, body: bytes, context: CallContext, call: Call
    ) -> AsyncGenerator[bytes, None]:
        adapter = getattr(request, "adapter", "")
        if adapter and not context.forwarded and not await self._routing.stays(adapter):
            call.notes["forwarded"] = True
            seconds = None if call.deadline is None else call.deadline - time.monotonic()
            return self._routing.forwarded(rpc, body, context, adapter, seconds)
        if adapter and context.forwarded:
            await self._routing.taken(adapter)
        return _here(rpc, request, call)


async def _here(rpc: Rpc, request: Any, call: Call) -> AsyncGenerator[bytes, None]:
    if not rpc.streams:
        yield await rpc.answer(request, call)
        return
    async with contextlib.aclosing(rpc.answers(request, call)) as answers:
        async for answer in answers:
            yield answer


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
