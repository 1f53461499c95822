"""The guard around every call: request id, identity, admission, error translation, log line, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import grpc

from ift_serve.server.audit_log import AuditLog
from ift_serve.server.auth import Authenticator, Identity, Role, require
from ift_serve.server.carried_deadline import carried_timeout, sooner, within
from ift_serve.server.errors import StatusError, as_status, details, end
from ift_serve.server.metrics import Metrics
from ift_serve.server.telemetry.call_trace import NOT_RECORDED, CallTrace, Tracing
from ift_serve.sharing.peers import Peers
from ift_serve.sharing.places import Places

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_CLOCK_TOLERANCE = 0.005
_STATUS_PATIENCE = 2.0
_DEADLINE_SHARE, _DEADLINE_MARGIN = 0.05, 0.05
"""The engine stops a little before the caller's deadline (a share of it, at most so many seconds), so that what was
generated still arrives."""


class RefusedError(Exception):
    """The call was ended before its handler began; its context knows how."""


@dataclass(slots=True)
class Call:
    """One call in flight. ``engine_id`` is unique in this process, whatever id the caller chose."""

    method: str
    request_id: str
    engine_id: str
    identity: Identity
    arrival: float
    deadline: float | None
    notes: dict[str, Any] = field(default_factory=dict)
    """What the log line says beside method, code and time."""
    trace: CallTrace = NOT_RECORDED


class CallGuard:
    """Opens and closes calls. ``places``: how many may be open at once, of the calls that need each role.

    ``peers`` names callers that have no token. ``audit`` gets a line for each call that needs the role admin.
    ``tracing``: where calls are told of.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        metrics: Metrics,
        places: Mapping[Role, Places],
        peers: Peers,
        audit: AuditLog,
        tracing: Tracing | None = None,
    ) -> None:
        self._audit = audit
        self._tracing = tracing or Tracing()
        self._peers = peers
        self._authenticator = authenticator
        self._metrics = metrics
        self._places = places
        self._count = itertools.count()
        self.in_flight = 0
        self.draining = False

    @contextlib.asynccontextmanager
    async def call(self, context: Any, method: str, role: Role, service: str = "") -> AsyncIterator[Call]:
        """Surround a handler: what it raises becomes a status with details, and the call is logged and counted.

        After an error the handler has to return: gRPC knows by then how the call ended. Raises RefusedError where the
        handler must not begin.
        """
        arrival = time.monotonic()
        remaining = context.time_remaining()
        metadata = [(str(k), v) for k, v in (context.invocation_metadata() or ())]
        request_id = _request_id(metadata)
        trailing: tuple[tuple[str, str | bytes], ...] = (("x-request-id", request_id),)
        context.set_trailing_metadata(trailing)
        trace = self._tracing.begin(f"{service}/{method}", metadata, arrival)
        notes: dict[str, Any] = {"trace_id": trace.trace_id} if trace.is_recorded else {}
        code = grpc.StatusCode.OK
        begun = False
        self.in_flight += 1
        self._metrics.in_flight.inc()
        try:
            identity = self._authenticator.identify(metadata, self._peers.caller(context.peer(), metadata))
            notes["client"] = identity.name
            require(identity, role)
            carried = carried_timeout(metadata)
            remaining = sooner(remaining, carried)
            with self._place(identity.name, role):
                async with within(carried):
                    begun = True
                    yield Call(
                        method,
                        request_id,
                        f"{request_id}/{next(self._count)}",
                        identity,
                        arrival,
                        _deadline(remaining, arrival),
                        notes,
                        trace,
                    )
        except (asyncio.CancelledError, GeneratorExit):
            # gRPC cancels a call whose deadline has passed as it does one whose caller went away.
            late = remaining is not None and time.monotonic() - arrival >= remaining - _CLOCK_TOLERANCE
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.AbortError:
            code = next((known for known in grpc.StatusCode if context.code() in (known, known.value[0])), code)
            raise
        except Exception as error:
            code, message, packed = _told(error, request_id)
            notes["error"] = message
            if code is grpc.StatusCode.INTERNAL:
                _log.exception("a call failed", extra={"request_id": request_id, "method": method})
            # Who does not read does not get the status either; it is on its way, and the call is over here.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STATUS_PATIENCE):
                    await end(context, code, message, (*trailing, ("grpc-status-details-bin", packed)))
        finally:
            self.in_flight -= 1
            self._metrics.in_flight.dec()
            self._metrics.calls.labels(method, code.name).inc()
            trace.end(code.name, request_id, str(notes.get("client", "")))
            seconds = round(time.monotonic() - arrival, 6)
            told = {"method": method, "request_id": request_id, "code": code.name, "seconds": seconds, **notes}
            _log.info("call", extra=told)
            if role == "admin":
                # Refused ones too, whoever they are of: attempts are what such a log is read for.
                peer = context.peer()
                self._audit.write("call", **told, peer=unquote(peer), address=self._peers.caller(peer, metadata))
        if not begun:  # here, where no error is handled that it would keep
            raise RefusedError

    @contextlib.contextmanager
    def _place(self, caller: str, role: Role) -> Iterator[None]:
        if self.draining:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down", retry_after=1.0)
        places = self._places[role]
        if not places.has_room(caller):
            message = f"{places.held(caller)} calls of this caller and {places.taken} of all are in flight already"
            raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_after=1.0)
        places.take(caller)
        try:
            yield
        finally:
            places.leave(caller)


def _told(error: Exception, request_id: str) -> tuple[grpc.StatusCode, str, bytes]:
    """Code, message and details of an error.

    No name in the guard's frame may stand for the error: its traceback holds that frame and all before it, with the
    request, and the circle would keep them until the collector's next full run.
    """
    status = as_status(error)
    return status.code, status.message, details(status, request_id)


def _request_id(metadata: list[tuple[str, str | bytes]]) -> str:
    given = next((str(v) for k, v in metadata if k == "x-request-id"), "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _deadline(remaining: float | None, now: float) -> float | None:
    if remaining is None or remaining > 10**9:
        return None
    return now + remaining - min(_DEADLINE_SHARE * remaining, _DEADLINE_MARGIN)
