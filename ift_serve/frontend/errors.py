"""Errors of calls to the engine. The server turns ``kind`` into a status code."""

from __future__ import annotations

from ift_serve.engine.protocol.results import FailureKind, RequestFailed, RequestUsage


class EngineStartError(RuntimeError):
    """The engine could not start; the message says what to do."""


class EngineError(Exception):
    """A call that got no answer, or not all of it.

    ``field`` names the offending field of the request where there is one; ``retry_after``: seconds, 0 when
    trying again would not help. ``usage``: how far a traced request had come.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        field: str = "",
        retry_after: float = 0.0,
        usage: RequestUsage | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.usage = usage

    def fresh(self) -> EngineError:
        """The same error without a traceback: a kept error would keep the frames of its raiser alive."""
        return EngineError(self.kind, self.message, self.field, self.retry_after, self.usage)

    @classmethod
    def of(cls, failed: RequestFailed) -> EngineError:
        """The error that the engine's message stands for."""
        return cls(failed.kind, failed.message, failed.field, failed.retry_after, failed.usage)
