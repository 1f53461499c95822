"""A receiver of OTLP: the services that OpenTelemetry's own definitions generate, on a real gRPC server in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class OtlpReceiver:
    """``traces`` and ``metrics``: the requests that came. ``headers``: the metadata of the last one."""

    def __init__(self) -> None:
        self._came = threading.Condition()
        self.traces: list[Any] = []
        self.metrics: list[Any] = []
        self.headers: dict[str, Any] = {}
        self.address = ""

    def _take(self, kept: list[Any], request: Any, context: Any) -> None:
        with self._came:
            kept.append(request)
            self.headers = dict(context.invocation_metadata())
            self._came.notify_all()

    def until(self, condition: Callable[[OtlpReceiver], bool], seconds: float = 60.0) -> bool:
        """Wait for requests until the condition holds."""
        with self._came:
            return self._came.wait_for(lambda: condition(self), seconds)

    @property
    def spans(self) -> list[Any]:
        """All spans that came."""
        return [s for request in self.traces for r in request.resource_spans for p in r.scope_spans for s in p.spans]

    @property
    def last_metrics(self) -> dict[str, Any]:
        """The metrics of the last request, by name."""
        request = self.metrics[-1]
        return {m.name: m for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics}


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(self, request: Any, context: Any) -> Any:
        self._receiver._take(self._receiver.traces, request, context)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(self, request: Any, context: Any) -> Any:
        self._receiver._take(self._receiver.metrics, request, context)
        return metrics_service_pb2.ExportMetricsServiceResponse()


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """A receiver on a free port of this machine, ``http://`` + its ``address``."""
    receiver = OtlpReceiver()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(receiver), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(receiver), server)
    receiver.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None).wait()
