"""Errors in OpenAI's shape. The only place that chooses an HTTP status."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from ift_serve.client import InvalidRequestError, ServerError

_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNIMPLEMENTED": 501,
    "ABORTED": 503,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}
_log = logging.getLogger(__name__)
_TOLD = 500
_AGAIN = frozenset({429, 503})
"""Statuses that a second try may not meet."""


@dataclass
class ApiError(Exception):
    """A request's end with an HTTP status. ``param``: the field at fault; ``retry_after``: seconds."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None

    def body(self) -> bytes:
        """The answer, as OpenAI's clients read it."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return msgspec.json.encode(
            {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
        )

    def headers(self) -> dict[str, str]:
        """What tells clients whether and when to ask again."""
        told = {"x-should-retry": "true" if self.status in _AGAIN else "false"}
        if self.retry_after is not None:
            told |= {
                "retry-after": str(max(1, math.ceil(self.retry_after))),
                "retry-after-ms": str(max(1, math.ceil(1000 * self.retry_after))),
            }
        if self.status == 401:
            told["www-authenticate"] = "Bearer"
        return told


def invalid(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """Status 400 that names a field."""
    return ApiError(400, f"{param}: {message}", param, code)


def of_server(error: ServerError, names: Mapping[str, str]) -> ApiError:
    """The answer that a gRPC status becomes. ``names``: what this request calls fields of the gRPC messages."""
    status = _STATUSES.get(error.code, 500)
    if error.code == "UNAVAILABLE" and not error.request_id:
        # Of gRPC's own or a proxy's making: callers need not know the addresses that it names.
        _log.warning("the server does not answer", extra={"error": error.message[:_TOLD]})
        return ApiError(503, "the server does not answer", None, "unavailable", error.retry_after or 1.0)
    if error.code == "RESOURCE_EXHAUSTED" and error.retry_after is None:
        status = 413  # cut off on the wire as too large, which no second try changes
    retry = error.retry_after if error.retry_after is not None or status != 503 else 1.0
    if status == 404:
        return ApiError(404, error.message, "model", "model_not_found")
    if not error.violations:
        return ApiError(status, error.message, None, error.code.lower(), retry)
    fields, colon, problem = error.message.partition(": ")
    for field in sorted((violation.field for violation in error.violations), key=len, reverse=True):
        fields = fields.replace(field, caller_name(field, names))
    param = caller_name(error.violations[0].field, names)
    return ApiError(status, f"{fields}{colon}{problem}", param, "invalid_value", retry)


def of_client(error: InvalidRequestError | ValueError | TypeError, names: Mapping[str, str]) -> ApiError:
    """What cannot be sent to the server at all."""
    if isinstance(error, InvalidRequestError):
        violation = error.violations[0]
        return invalid(caller_name(violation.field, names), violation.message)
    return ApiError(400, str(error), None, "invalid_value")


def caller_name(field: str, names: Mapping[str, str]) -> str:
    """What the caller calls a field of the gRPC messages, which begins with one of the names."""
    for own in sorted(names, key=len, reverse=True):
        if field == own or field.startswith((f"{own}.", f"{own}[")):
            return (names[own] + field[len(own) :]).lstrip(".").replace(".parts[", ".content[")
    return field
