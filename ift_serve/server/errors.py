"""Errors as gRPC statuses with google.rpc details. The only place that chooses a status code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from ift_serve.engine.protocol.results import FailureKind
from ift_serve.frontend.errors import EngineError
from ift_serve.text.prompt import PromptError

_DOMAIN = "ift-serve"
_CODES = {
    FailureKind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    FailureKind.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    FailureKind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    FailureKind.UNFIT: grpc.StatusCode.FAILED_PRECONDITION,
    FailureKind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    FailureKind.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    FailureKind.CANCELLED: grpc.StatusCode.CANCELLED,
    FailureKind.INTERNAL: grpc.StatusCode.INTERNAL,
}
_WIRE_FIELDS = {"strategy": "reasoning", "limits.sequences": "reasoning"}
"""What callers call fields of the engine's messages."""


@dataclass
class StatusError(Exception):
    """A call's end with a status. ``violations``: (field path, what is wrong); ``retry_after``: seconds."""

    code: grpc.StatusCode
    message: str
    violations: list[tuple[str, str]] = field(default_factory=list)
    retry_after: float = 0.0


def invalid(path: str, message: str) -> StatusError:
    """INVALID_ARGUMENT that names a field."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, f"{path}: {message}", [(path, message)])


def conflict(paths: Sequence[str], message: str) -> StatusError:
    """INVALID_ARGUMENT that names every field of a combination that cannot be."""
    listed = " and ".join(paths)
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, f"{listed}: {message}", [(path, message) for path in paths])


def _most_telling(statuses: list[StatusError]) -> StatusError:
    """Of several, one that says what the caller may do: not that others were cancelled, nor that something failed."""
    mute = (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)
    return next((status for status in statuses if status.code not in mute), statuses[0])


def as_status(error: Exception) -> StatusError:
    """The status that an error of any layer stands for."""
    if isinstance(error, ExceptionGroup):
        return _most_telling([as_status(one) for one in error.exceptions])
    if isinstance(error, StatusError):
        return error
    if isinstance(error, PromptError):
        return invalid(error.field, error.message)
    if isinstance(error, EngineError):
        field = _WIRE_FIELDS.get(error.field, error.field)
        message = error.message
        if field and message.startswith(f"{error.field}: "):
            message = field + message.removeprefix(error.field)
        return StatusError(_CODES[error.kind], message, [(field, message)] if field else [], error.retry_after)
    return StatusError(grpc.StatusCode.INTERNAL, "the server failed; its log has the details under this request id")


def _packed(message: object) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)  # type: ignore[arg-type]
    return packed


def details(error: StatusError, request_id: str) -> bytes:
    """A serialised google.rpc.Status for the trailing metadata ``grpc-status-details-bin``."""
    parts = [
        _packed(error_details_pb2.ErrorInfo(reason=error.code.name, domain=_DOMAIN)),
        _packed(error_details_pb2.RequestInfo(request_id=request_id)),
    ]
    if error.violations:
        violation = error_details_pb2.BadRequest.FieldViolation
        listed = [violation(field=path, description=message) for path, message in error.violations]
        parts.append(_packed(error_details_pb2.BadRequest(field_violations=listed)))
    if error.retry_after > 0:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        parts.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    status = status_pb2.Status(code=error.code.value[0], message=error.message, details=parts)
    return bytes(status.SerializeToString())


async def end(context: Any, code: grpc.StatusCode, message: str, trailing: Sequence[tuple[str, str | bytes]]) -> None:
    """End a call with a status; its handler returns then, and gRPC raises ``AbortError`` by itself.

    gRPC's context keeps that error. With the frames that it has passed, which hold the context and the request, it
    would be a circle, and every refused request would stay in memory until the collector's next full run.
    """
    try:
        await context.abort(code, message, trailing)
    except grpc.aio.AbortError as ended:
        ended.__traceback__ = None
        ended.__context__ = None
