"""Errors of calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request and what is wrong with it."""

    field: str
    message: str


class InvalidRequestError(ValueError):
    """A request that cannot be sent; ``violations`` says what is wrong with it, as a :class:`ServerError`'s do."""

    def __init__(self, *violations: FieldViolation) -> None:
        super().__init__("; ".join(f"{violation.field}: {violation.message}" for violation in violations))
        self.violations = violations


class ServerError(Exception):
    """A call that ended with a status.

    ``code``: name of the gRPC status; ``violations``: what is wrong with the request; ``retry_after``: seconds after
    which the server wants to be asked again, or None; ``request_id``: what the server's log calls it.
    """

    def __init__(
        self,
        code: str,
        message: str,
        violations: tuple[FieldViolation, ...] = (),
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(f"{code}: {message}" + (f" (request {request_id})" if request_id else ""))
        self.code = code
        self.message = message
        self.violations = violations
        self.retry_after = retry_after
        self.request_id = request_id

    @classmethod
    def of(cls, error: grpc.RpcError) -> ServerError:
        """From what grpc raised, with the details of its trailing metadata."""
        metadata = list(_metadata(error))
        request_id = next((str(v) for k, v in metadata if k == "x-request-id"), "")
        code, message = error.code(), error.details() or ""  # type: ignore[attr-defined]
        packed = next((v for k, v in metadata if k == "grpc-status-details-bin"), None)
        violations: tuple[FieldViolation, ...] = ()
        retry_after: float | None = None
        if isinstance(packed, bytes):
            status = status_pb2.Status.FromString(packed)
            for detail in status.details:
                bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
                if detail.Unpack(bad):
                    violations = tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
                elif detail.Unpack(retry):
                    retry_after = retry.retry_delay.ToNanoseconds() / 1e9
        return cls(code.name, message, violations, retry_after, request_id)


def _metadata(error: grpc.RpcError) -> Iterable[tuple[str, str | bytes]]:
    trailing = error.trailing_metadata()  # type: ignore[attr-defined]
    pairs: Iterable[Any] = trailing or ()
    return [(str(key), value) for key, value in pairs]
