"""One HTTP request and its answer, with bounds on what either side may keep waiting."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from ift_serve.gateway.errors import ApiError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SAFE_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_JSON = "application/json"


class ClientGone(Exception):
    """The caller has closed the connection, or reads no more."""


class Exchange:
    """The answer to one request. ``patience``: seconds that a piece of it may be left unread."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, patience: float) -> None:
        self.scope = scope
        self.begun = time.monotonic()
        self.status: int | None = None
        self.request_id = ""
        self._receive, self._send = receive, send
        self._patience = patience

    def header(self, name: str) -> str:
        """The first header of a name, in lower case; empty: there is none."""
        return next(iter(self.headers(name)), "")

    def headers(self, name: str) -> list[str]:
        """All headers of a name, in lower case."""
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self.scope["headers"] if key == wanted]

    async def body(self, most: int, seconds: float) -> bytes:
        """The request's body. Raises ApiError past ``most`` bytes, before more is read, or past the time."""
        length = self.header("content-length")
        if length.isascii() and length.isdigit() and int(length[:20]) > most:
            raise _too_large(most)
        parts, size = [], 0
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise _too_large(most)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise ApiError(408, f"the body did not arrive within {seconds:g} seconds", None, "timeout") from None

    @contextlib.asynccontextmanager
    async def while_connected(self) -> AsyncIterator[None]:
        """Cancel what is done inside once the caller closes the connection; that raises ClientGone."""
        task = asyncio.current_task()
        assert task is not None
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await self._receive())["type"] != "http.disconnect":
                pass
            gone = True
            task.cancel()

        watcher = asyncio.create_task(watch())
        try:
            yield
            await asyncio.sleep(0)  # a cancellation that is on its way arrives here
        except asyncio.CancelledError:
            if gone and task.uncancel() == 0:
                raise ClientGone from None
            raise
        finally:
            watcher.cancel()

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send status and headers."""
        self.status = status
        told = {**SAFE_HEADERS, **({"x-request-id": self.request_id} if self.request_id else {}), **headers}
        listed = [(name.encode(), value.encode("latin-1", "replace")) for name, value in told.items()]
        await self._put({"type": "http.response.start", "status": status, "headers": listed})

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send a piece of the body. Raises ClientGone where it is not read in time."""
        await self._put({"type": "http.response.body", "body": data, "more_body": not last})

    async def answer(self, body: bytes, *, status: int = 200, kind: str = _JSON, **headers: str) -> None:
        """Send a whole answer."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        await self.begin(status, {"content-type": kind, "content-length": str(len(body)), **told})
        for start in range(0, max(1, len(body)), _PIECE):
            await self.write(body[start : start + _PIECE], last=start + _PIECE >= len(body))

    async def refuse(self, error: ApiError) -> None:
        """Send an error in place of an answer."""
        body = error.body()
        headers = {"content-type": _JSON, "content-length": str(len(body)), **error.headers()}
        await self.begin(error.status, headers)
        await self.write(body, last=True)

    async def _put(self, message: MutableMapping[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._send(message)
        except TimeoutError:
            raise ClientGone from None


_PIECE = 64 * 1024
"""Bytes written at once: a caller that reads slowly is then seen to read."""


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body has more than {most} bytes", None, "request_too_large")
