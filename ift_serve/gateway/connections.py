"""Connections of HTTP callers: how many, and for how long one may say nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ift_serve.sharing.peers import Peers, named, parse_address
from ift_serve.sharing.places import Places

_HEAD_BYTES = 64 * 1024
"""Bytes of a request's line and headers."""
_UNWANTED_BYTES = 2**22
"""Bytes of a body that are read and dropped because the request was refused without it."""
_PIPELINED = 8
"""Requests on one connection that wait for the one before them."""
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"


class ConnectionBounds:
    """``places``: connections, of which no address has more than half. ``seconds``: for a request's head."""

    def __init__(self, places: Places, peers: Peers, seconds: float) -> None:
        self.places, self.peers, self.seconds = places, peers, seconds

    def protocol(self) -> type[HttpToolsProtocol]:
        """uvicorn's protocol within these bounds."""
        bounds = self

        class Bounded(BoundedProtocol):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(bounds, *args, **kwargs)

        return Bounded


class BoundedProtocol(HttpToolsProtocol):
    """One connection. uvicorn itself waits for ever for a first request and takes headers of any size."""

    def __init__(self, bounds: ConnectionBounds, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds = bounds
        self._caller: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = self._unwanted_bytes = 0
        self._in_body = False
        self.app_state = {**self.app_state, "abort": self.abort}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, or close the connection."""
        super().connection_made(transport)
        caller = self._address()
        if not self._bounds.places.has_room(caller):
            transport.write(_BUSY)
            transport.close()
            return
        self._bounds.places.take(caller)
        self._caller = caller
        self._expect_head()

    def _address(self) -> str:
        address = parse_address(str(self.client[0])) if self.client else None
        if address is None or self._bounds.peers.is_proxy(address):
            return f"connection {id(self)}"  # a proxy's connections are many callers'
        return named(address)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._forget_timer()
        if self._caller is not None:
            self._bounds.places.leave(self._caller)
            self._caller = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; those of a head that does not end are bounded, and so is the time it takes."""
        if self._caller is None:
            return
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.is_answering:
            self._forget_timer()
            return
        if self._in_body:
            # The answer was sent without it. Closed now, the caller might not get to see that answer.
            self._unwanted_bytes += len(data)
            if self._unwanted_bytes > _UNWANTED_BYTES:
                self.transport.close()
                return
        else:
            self._head_bytes += len(data)
        if self._head_bytes > _HEAD_BYTES:
            self.send_400_response("The request's head is too large.")
        elif self._timer is None:
            self._expect_head()

    @property
    def is_answering(self) -> bool:
        """Whether a request has come whose answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def on_headers_complete(self) -> None:
        """A request begins. Of those that are sent before the ones before them are answered, few are taken."""
        self._head_bytes = self._unwanted_bytes = 0
        self._in_body = True
        if len(self.pipeline) >= _PIPELINED:
            raise ValueError("too many requests are sent at once")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request's body has ended."""
        self._in_body = False
        super().on_message_complete()

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(self._bounds.seconds, self._too_slow)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if not self.is_answering:
            self.transport.close()

    def abort(self) -> None:
        """Close at once; what is not sent yet is dropped."""
        self.transport.abort()
