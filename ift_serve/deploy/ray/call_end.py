"""How a call ended on another replica, on its way back."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2, status_pb2

from ift_serve.deploy.ray.call_context import CallContext
from ift_serve.server.errors import StatusError

DETAILS_KEY = "grpc-status-details-bin"
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The last thing that a replica says of a forwarded call. ``details``: a serialised google.rpc.Status, or empty."""

    code: int
    message: str
    details: bytes = b""

    @classmethod
    def of(cls, context: CallContext) -> CallEnd:
        """How a call ended here."""
        details = next((value for key, value in context.trailing if key == DETAILS_KEY), b"")
        return cls(context.ended.value[0], context.message, details if isinstance(details, bytes) else b"")

    def raise_unless_ok(self) -> None:
        """Raise the StatusError that ends the call in the same way where it was handed over."""
        if self.code == grpc.StatusCode.OK.value[0]:
            return
        violations: list[tuple[str, str]] = []
        retry_after = 0.0
        for packed in status_pb2.Status.FromString(self.details).details:
            bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
            if packed.Unpack(bad):
                violations += [(one.field, one.description) for one in bad.field_violations]
            elif packed.Unpack(retry):
                retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        raise StatusError(_BY_NUMBER[self.code], self.message, violations, retry_after)
