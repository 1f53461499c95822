"""The services that need no token, health and reflection, bounded: in calls, in bytes, and in patience."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from ift_serve.server.errors import StatusError, details, end, invalid
from ift_serve.sharing.peers import Peers

_STREAMS = frozenset(
    {
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    }
)
_CHECKS = frozenset({"/grpc.health.v1.Health/Check"})
_RETRY_SECONDS = 5.0
_PATIENCE = 10.0
"""Seconds that the first message of a call may take to come."""
_LARGEST = 4096
"""Bytes of a message: it holds the name of a service, a symbol or a file."""

_Read = Callable[[bytes], Any]


class OpenServices(grpc.aio.ServerInterceptor):  # type: ignore[misc, type-arg]
    """Refuses health watches and reflection streams past ``streams``, and past half of that from one address.

    Single checks have places of their own: ``checks`` of one address wait for their message at once, so whoever sends
    it is always answered. ``patience``: seconds that an answer may be left unread.
    """

    def __init__(self, streams: int, checks: int, peers: Peers, patience: float) -> None:
        self._streams, self._checks = streams, checks
        self._peers = peers
        self._patience = patience
        self._open: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """The method's handler within the bounds. It takes a stream of bytes, so that it begins before a message."""
        handler = await continuation(details)
        if handler is None or details.method not in _STREAMS | _CHECKS:
            return handler
        if handler.unary_unary:
            return grpc.stream_unary_rpc_method_handler(self._check(handler), None, handler.response_serializer)
        serve = self._watch(handler) if handler.unary_stream else self._reflect(handler)
        return grpc.stream_stream_rpc_method_handler(serve, None, handler.response_serializer)

    def _check(self, handler: Any) -> Any:
        async def check(bodies: AsyncIterator[bytes], context: Any) -> Any:
            async with _refusing(context):
                with self._place(context, self._waiting, self._checks):
                    request = await _first(bodies, handler.request_deserializer)
                return await handler.unary_unary(request, context)

        return check

    def _watch(self, handler: Any) -> Any:
        async def watch(bodies: AsyncIterator[bytes], context: Any) -> None:
            async with _refusing(context):
                with self._place(context, self._open, (self._streams + 1) // 2, self._streams):
                    request = await _first(bodies, handler.request_deserializer)
                    await handler.unary_stream(request, context)

        return watch

    def _reflect(self, handler: Any) -> Any:
        async def requests(bodies: AsyncIterator[bytes]) -> AsyncIterator[Any]:
            async for body in bodies:
                yield _parsed(body, handler.request_deserializer)

        async def reflect(bodies: AsyncIterator[bytes], context: Any) -> None:
            async with _refusing(context):
                with self._place(context, self._open, (self._streams + 1) // 2, self._streams):
                    async for answer in handler.stream_stream(requests(bodies), context):
                        await self._write(context, answer)

        return reflect

    async def _write(self, context: Any, answer: Any) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await context.write(answer)
        except TimeoutError:
            text = f"the answer was not read for {self._patience:g} seconds"
            raise StatusError(grpc.StatusCode.ABORTED, text) from None

    @contextlib.contextmanager
    def _place(self, context: Any, held: Counter[str], of_one: int, of_all: int | None = None) -> Iterator[None]:
        caller = self._peers.caller(context.peer(), context.invocation_metadata() or ())
        if held[caller] >= of_one or (of_all is not None and held.total() >= of_all):
            text = "too many watches, reflection streams or checks without a message are open"
            raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, text, retry_after=_RETRY_SECONDS)
        held[caller] += 1
        try:
            yield
        finally:
            held[caller] -= 1
            if not held[caller]:
                del held[caller]


async def _first(bodies: AsyncIterator[bytes], read: _Read) -> Any:
    """The one message of a call. Raises StatusError."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return _parsed(await anext(bodies), read)
    except StopAsyncIteration:
        raise invalid("request", "is missing") from None
    except TimeoutError:
        raise invalid("request", f"did not arrive within {_PATIENCE:g} seconds") from None


def _parsed(body: bytes, read: _Read) -> Any:
    if len(body) > _LARGEST:
        raise invalid("request", f"has {len(body)} bytes; at most {_LARGEST}")
    try:
        return read(body)
    except DecodeError:
        raise invalid("request", "is not a message of this method") from None


@contextlib.asynccontextmanager
async def _refusing(context: Any) -> AsyncIterator[None]:
    try:
        yield
    except StatusError as error:
        await end(context, error.code, error.message, (("grpc-status-details-bin", details(error, "")),))
