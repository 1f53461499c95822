"""Sends spans and metrics to a collector over OTLP (gRPC), as OpenTelemetry's own environment variables say."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import uuid
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from prometheus_client import CollectorRegistry

from ift_serve.server.config import ServerConfig
from ift_serve.server.model_service import server_version
from ift_serve.server.telemetry.metrics_push import MetricsPush
from ift_serve.server.telemetry.tracing import OpenTelemetryTracing

_log = logging.getLogger(__name__)
_NAME = "ift-serve"
_LAST_SECONDS = 3.0
"""What a server that ends gives a collector to take the rest: one that is not there must not hold up the end."""


def resource() -> Resource:
    """Who sends: what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes before what is known here."""
    known = {"service.name": _NAME, "service.version": server_version(), "service.instance.id": str(uuid.uuid4())}
    return Resource.create({**known, **OTELResourceDetector().detect().attributes})


def _sampler(ratio: float | None) -> Sampler | None:
    """None: the one that OTEL_TRACES_SAMPLER names, or all."""
    return None if ratio is None else ParentBased(TraceIdRatioBased(ratio))


class Telemetry:
    """Spans and metrics of one server. ``exporter``: where metrics go; None: nowhere."""

    def __init__(
        self,
        processor: SpanProcessor | None,
        exporter: MetricExporter | None = None,
        ratio: float | None = None,
        interval: float = 60.0,
    ) -> None:
        self._resource = resource()
        self._exporter = exporter
        self._interval = interval
        self._push: MetricsPush | None = None
        # The server ends it itself: at the interpreter's end it would wait for a collector that may not be there.
        self._provider = TracerProvider(_sampler(ratio), self._resource, shutdown_on_exit=False)
        if processor is not None:
            self._provider.add_span_processor(processor)
        self.tracing = OpenTelemetryTracing(self._provider.get_tracer("ift_serve.server", server_version()))

    def start(self, registry: CollectorRegistry) -> None:
        """Begin to send what ``registry`` holds."""
        if self._exporter is not None:
            self._push = MetricsPush(registry, self._exporter, self._resource, self._interval)
            self._push.start()

    async def close(self) -> None:
        """Send the rest, if the collector takes it at once."""
        ends: list[Callable[[], object]] = [self._provider.shutdown]
        if self._push is not None:
            ends.append(self._push.close)
        threads = [threading.Thread(target=end, name="telemetry", daemon=True) for end in ends]
        for thread in threads:
            thread.start()
        left = asyncio.get_running_loop().time() + _LAST_SECONDS
        for thread in threads:
            await asyncio.to_thread(thread.join, max(0.0, left - asyncio.get_running_loop().time()))
        if any(thread.is_alive() for thread in threads):
            _log.warning("the collector did not take the last spans and metrics within %g seconds", _LAST_SECONDS)


def _is_sent(signal: str) -> bool:
    """Whether OTEL_TRACES_EXPORTER or OTEL_METRICS_EXPORTER leaves it on. Raises ValueError where it asks for more."""
    name = f"OTEL_{signal}_EXPORTER"
    chosen = os.environ.get(name, "otlp").strip()
    if chosen not in ("otlp", "none"):
        raise ValueError(f"{name}: {chosen!r} is not served; use otlp or none")
    protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if chosen == "otlp" and protocol not in (None, "grpc"):
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not served; use grpc")
    return chosen == "otlp"


def _interval() -> float:
    """Seconds between two pushes. Raises ValueError."""
    given = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or "60000"
    if not given.isdecimal() or not int(given):
        raise ValueError(f"OTEL_METRIC_EXPORT_INTERVAL: {given!r} is not a number of milliseconds above 0")
    return int(given) / 1000


def telemetry_of(config: ServerConfig) -> Telemetry:
    """What option and environment ask for; the option comes first. Raises ValueError."""
    endpoint = config.otlp_endpoint
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint)) if _is_sent("TRACES") else None
    exporter = OTLPMetricExporter(endpoint) if _is_sent("METRICS") else None
    return Telemetry(processor, exporter, config.trace_ratio, _interval())
