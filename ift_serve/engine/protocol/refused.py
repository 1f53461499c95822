"""The error of a request that cannot be taken."""

from __future__ import annotations

from ift_serve.engine.protocol.results import FailureKind


class RefusedError(Exception):
    """A request that cannot be taken. ``field`` is the name in the message, empty where none is at fault."""

    def __init__(self, kind: FailureKind, message: str, field: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field
        self.retry_after = retry_after
