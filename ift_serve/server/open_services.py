"""The services that need no token, health and reflection, with a bound on what of them is open at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from ift_serve.server.call_guard import host
from ift_serve.server.errors import StatusError, details

_STREAMS = frozenset(
    {
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    }
)
_RETRY_SECONDS = 5.0


class OpenStreamLimit(grpc.aio.ServerInterceptor):  # type: ignore[misc, type-arg]
    """Refuses health watches and reflection streams past ``limit``, and past half of that from one address.

    Single health checks always pass.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: Counter[str] = Counter()

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """The method's handler, counted while it runs."""
        handler = await continuation(details)
        if handler is None or details.method not in _STREAMS:
            return handler
        serve = handler.unary_stream or handler.stream_stream

        async def counted(request: Any, context: Any) -> None:
            peer = host(context.peer())
            if self._open.total() >= self._limit or self._open[peer] >= (self._limit + 1) // 2:
                await _refuse(context)
            self._open[peer] += 1
            try:
                answers = serve(request, context)
                if asyncio.iscoroutine(answers):
                    await answers
                else:
                    async for answer in answers:
                        await context.write(answer)
            finally:
                self._open[peer] -= 1
                self._open += Counter()  # forget those who have none

        make = grpc.unary_stream_rpc_method_handler if handler.unary_stream else grpc.stream_stream_rpc_method_handler
        return make(counted, handler.request_deserializer, handler.response_serializer)


async def _refuse(context: Any) -> None:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    error = StatusError(code, "too many watches and reflection streams are open", retry_after=_RETRY_SECONDS)
    await context.abort(code, error.message, (("grpc-status-details-bin", details(error, "")),))
