"""A call's deadline in metadata of our own, for ways on which gRPC's own is lost."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence

import grpc

from ift_serve.server.errors import StatusError, invalid

TIMEOUT_KEY = "x-ift-timeout"
"""What is left of the caller's time, written as gRPC's own ``grpc-timeout``: ``1500m`` are one and a half seconds."""
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def carried_timeout(metadata: Sequence[tuple[str, str | bytes]]) -> float | None:
    """Seconds that the metadata leave a call; None where they say nothing. Raises INVALID_ARGUMENT."""
    given = [value for key, value in metadata if key == TIMEOUT_KEY]
    return min((_seconds(value) for value in given), default=None)


def _seconds(given: str | bytes) -> float:
    found = _TIMEOUT.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        raise invalid(TIMEOUT_KEY, f"{str(given)[:32]!r} is no time; write 1 to 8 digits and one of H M S m u n")
    return int(found[1]) * _SECONDS[found[2]]


def sooner(first: float | None, second: float | None) -> float | None:
    """The shorter of two times, of which None is without end."""
    return min((seconds for seconds in (first, second) if seconds is not None), default=None)


@contextlib.asynccontextmanager
async def within(seconds: float | None) -> AsyncIterator[None]:
    """What gRPC does at its own deadline: end what runs, as DEADLINE_EXCEEDED."""
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            yield
    except TimeoutError:
        if not timeout.expired():
            raise
        raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, f"the call's {seconds:g} seconds are over") from None
