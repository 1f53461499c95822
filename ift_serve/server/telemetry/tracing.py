"""Traces of calls by OpenTelemetry: a span for each call, a child for each phase, none for a token.

Attributes have the names of OpenTelemetry's conventions for rpc and gen_ai where these have one. No prompt, no token
and no text of an error is among them: an error may quote what the caller wrote, and the log has it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_trace_id, set_span_in_context

from ift_serve.server.telemetry.call_trace import NOT_RECORDED, CallTrace, Generated, Metadata, Scored, Tracing
from ift_serve.server.telemetry.phases import Phase, attributes_of, phases_of, score_attributes, score_phases

_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Codes that are a server's errors, by the conventions; the others are the caller's."""


class _MetadataGetter(Getter[Metadata]):
    """Of several contexts the last one counts: whoever added it is nearer to us. A state may come in parts."""

    def get(self, carrier: Metadata, key: str) -> list[str] | None:
        values = [value for name, value in carrier if name == key and isinstance(value, str)]
        return (values if key == "tracestate" else values[-1:]) or None

    def keys(self, carrier: Metadata) -> list[str]:
        return [name for name, _ in carrier]


_GETTER = _MetadataGetter()


class OpenTelemetryTracing(Tracing):
    """``tracer`` decides by its sampler which calls are recorded; propagators are those of ``OTEL_PROPAGATORS``."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def begin(self, method: str, metadata: Metadata, arrival: float) -> CallTrace:
        parent = get_global_textmap().extract(metadata, Context(), _GETTER)
        offset = time.time() - time.monotonic()
        name = {"rpc.system.name": "grpc", "rpc.method": method}
        span = self._tracer.start_span(
            method, parent, SpanKind.SERVER, attributes=name, start_time=_nanoseconds(arrival + offset)
        )
        return _RecordedCall(self._tracer, span, offset) if span.is_recording() else NOT_RECORDED


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


class _RecordedCall(CallTrace):
    """``offset``: seconds from the monotonic clock to the one of the world, as it was when the call came."""

    is_recorded = True

    def __init__(self, tracer: Tracer, span: Span, offset: float) -> None:
        self._tracer = tracer
        self._span = span
        self._offset = offset
        self.trace_id = format_trace_id(span.get_span_context().trace_id)

    def generated(self, generated: Generated) -> None:
        self._span.set_attributes(attributes_of(generated))
        self._add(phases_of(generated), self._span)

    def scored(self, scored: Scored) -> None:
        self._span.set_attributes(score_attributes(scored))
        self._add(score_phases(scored), self._span)

    def _add(self, phases: Sequence[Phase], parent: Span) -> None:
        context = set_span_in_context(parent, Context())
        for phase in phases:
            span = self._tracer.start_span(
                phase.name, context, attributes=phase.attributes, start_time=self._at(phase.began)
            )
            for name, when in phase.events:
                span.add_event(name, timestamp=self._at(when))
            self._add(phase.children, span)
            span.end(self._at(max(phase.began, phase.ended)))

    def _at(self, seconds: float) -> int:
        return _nanoseconds(seconds + self._offset)

    def end(self, code: str, request_id: str, caller: str) -> None:
        span = self._span
        span.set_attributes(
            {"rpc.response.status_code": code, "ift_serve.request_id": request_id, "ift_serve.client": caller}
        )
        if code in _FAULTS:
            span.set_status(Status(StatusCode.ERROR))
        if code != "OK":
            span.set_attribute("error.type", code)
        span.end(self._at(time.monotonic()))
