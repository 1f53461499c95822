"""One call's context: Ray's, behind as much of grpc.aio's interface as the guard uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import grpc

from ift_serve.server.carried_deadline import TIMEOUT_KEY

Metadata = Sequence[tuple[str, str | bytes]]


class CallContext:
    """What came with a call, and how it ended. Ray hands on no deadline: it is in the metadata, see TIMEOUT_KEY.

    ``forwarded``: another replica sent it here because of its adapter.
    """

    def __init__(self, metadata: Metadata, peer: str, *, forwarded: bool = False) -> None:
        self._metadata = tuple(metadata)
        self._peer = peer
        self.forwarded = forwarded
        self.ended: grpc.StatusCode = grpc.StatusCode.OK
        self.message = ""
        self.trailing: Metadata = ()

    def time_remaining(self) -> float | None:
        """None: what there is to say is in the metadata."""
        return None

    def invocation_metadata(self) -> Metadata:
        """What the caller sent."""
        return self._metadata

    def peer(self) -> str:
        """Who sent it: behind Ray's ingress, the ingress."""
        return self._peer

    def set_trailing_metadata(self, trailing: Metadata) -> None:
        """Sent at the end of a call that succeeds."""
        self.trailing = tuple(trailing)

    def code(self) -> grpc.StatusCode:
        """How the call ended."""
        return self.ended

    async def abort(self, code: grpc.StatusCode, message: str, trailing: Metadata) -> NoReturn:
        """End the call with a status. Raises AbortError, as gRPC does."""
        self.ended, self.message, self.trailing = code, message, tuple(trailing)
        raise grpc.aio.AbortError(message)

    def for_another(self, seconds: float | None) -> list[tuple[str, str | bytes]]:
        """The metadata for the replica that the call is handed to, with so many seconds left."""
        kept = [(key, value) for key, value in self._metadata if key != TIMEOUT_KEY]
        if seconds is None:
            return kept
        milliseconds = min(max(0, round(1000 * seconds)), 99_999_999)
        return [*kept, (TIMEOUT_KEY, f"{milliseconds}m")]
