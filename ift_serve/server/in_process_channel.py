"""The server's own services behind the interface of a gRPC channel, for what runs in its process."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from grpc.aio import AioRpcError, Metadata

from ift_serve.server.auth import Identity
from ift_serve.server.call_guard import Call
from ift_serve.server.errors import StatusError, as_status, details
from ift_serve.server.services import snake


class InProcessChannel:
    """Calls go to the services in the loop in which this is made, from any loop, without sockets, tokens or TLS.

    They are made in the name of ``identity``, so that shares and priorities are the caller's. ``request_id``: what the
    log knows the call by that this is for.
    """

    def __init__(self, services: Mapping[str, object], identity: Identity, request_id: str) -> None:
        self._services = services
        self._identity = identity
        self._request_id = request_id
        self._loop = asyncio.get_running_loop()
        self._count = itertools.count()

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Callable[..., InProcessCall]:
        """What a stub makes of its methods. Raises KeyError when called for a service that is not behind it."""
        service, name = method.removeprefix("/").split("/")

        def start(request: Any, *, timeout: float | None = None, metadata: Any = None) -> InProcessCall:
            handler = getattr(self._services[service], snake(name))
            request_id = f"{self._request_id}.{next(self._count)}"
            answer = self._answer(handler, name, request, request_id, timeout, response_deserializer)
            return InProcessCall(asyncio.run_coroutine_threadsafe(answer, self._loop), request_id)

        return start

    def unary_stream(self, method: str, *_: Any, **__: Any) -> Callable[..., Any]:
        """Streams are not offered; stubs ask for their methods when they are made."""

        def refuse(*_: Any, **__: Any) -> Any:
            raise NotImplementedError(f"{method}: streams are not offered within the process")

        return refuse

    async def close(self) -> None:
        """Nothing is held."""

    async def _answer(
        self, handler: Any, name: str, request: Any, request_id: str, timeout: float | None, deserialise: Any
    ) -> Any:
        now = time.monotonic()
        deadline = None if timeout is None else now + timeout
        call = Call(name, request_id, request_id, self._identity, now, deadline)
        try:
            async with asyncio.timeout(timeout):
                answer = await handler(request, call)
        except TimeoutError:
            message = f"no answer within {timeout:g} seconds"
            raise _error(StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, message), request_id) from None
        except Exception as error:
            raise _error(as_status(error), request_id) from error
        return deserialise(answer) if isinstance(answer, bytes) else answer


class InProcessCall:
    """A call that goes on; awaited for its answer."""

    def __init__(self, future: Any, request_id: str) -> None:
        self._future = future
        self._request_id = request_id

    def __await__(self) -> Any:
        return asyncio.wrap_future(self._future).__await__()

    async def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        """As the server's."""
        return (("x-request-id", self._request_id),)


def _error(status: StatusError, request_id: str) -> AioRpcError:
    packed = details(status, request_id)
    trailing = Metadata(("x-request-id", request_id), ("grpc-status-details-bin", packed))
    return AioRpcError(status.code, Metadata(), trailing, status.message, None)
