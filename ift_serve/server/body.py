"""A call's request message: read, bounded and parsed only once the caller is known and admitted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import DecodeError

from ift_serve.server.bad_text import bad_text_field
from ift_serve.server.errors import invalid

RECEIVE_FACTOR = 2
"""gRPC itself takes messages up to so many times the limit: what lies between is refused with an error that says so,
what is larger is cut off on the wire with a status that carries no details."""

_PATIENCE = 60.0
"""Seconds: who opens a call and sends nothing does not keep its place."""
_SMALL = 64 * 1024
"""Bytes that are parsed in a few milliseconds whatever they hold."""


class BodyReader:
    """Reads the one message of a call, at most ``largest`` bytes. One large message is parsed at a time.

    The bytes stay with gRPC until they are asked for here, so a caller who is refused has none of them parsed.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._turn = asyncio.Lock()

    async def read(self, bodies: AsyncIterator[bytes], message_class: type[Any]) -> Any:
        """The message. Raises StatusError INVALID_ARGUMENT."""
        try:
            async with asyncio.timeout(_PATIENCE):
                data = await anext(bodies)
        except StopAsyncIteration:
            raise invalid("request", "is missing") from None
        except TimeoutError:
            raise invalid("request", f"did not arrive within {_PATIENCE:g} seconds") from None
        if len(data) > self._largest:
            raise invalid("request", f"has {len(data)} bytes; at most {self._largest}")
        if len(data) <= _SMALL:
            return _parsed(data, message_class)
        async with self._turn:
            begun = time.perf_counter()
            try:
                return _parsed(data, message_class)
            finally:
                # Parsing blocks the loop: give other calls as much time before the next message is parsed.
                await asyncio.sleep(time.perf_counter() - begun)


def _parsed(data: bytes, message_class: type[Any]) -> Any:
    try:
        return message_class.FromString(data)
    except DecodeError as error:
        if "UTF-8" in str(error):
            raise invalid(bad_text_field(message_class, data) or "request", "is not valid UTF-8") from None
        raise invalid("request", f"is not a {message_class.DESCRIPTOR.full_name} message") from None
