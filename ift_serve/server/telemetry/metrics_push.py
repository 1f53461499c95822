"""Pushes what a Prometheus registry holds to a collector, at intervals, in a thread: both export the same metrics."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric as Family
from prometheus_client.samples import Sample

_log = logging.getLogger(__name__)
_SCOPE = InstrumentationScope("ift_serve.server")
_UNITS = {"_seconds": "s", "_bytes": "By"}
_PATIENCE_MILLIS = 10_000


def metrics_data(registry: CollectorRegistry, resource: Resource, began: int, now: int) -> MetricsData:
    """All families that have samples, cumulative since ``began``. Times are nanoseconds since 1970."""
    metrics = [_metric(family, began, now) for family in registry.collect() if family.samples]
    scope = ScopeMetrics(_SCOPE, metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(family: Family, began: int, now: int) -> Metric:
    """Counters keep the ``_total`` that Prometheus knows them by: a dashboard finds them under one name."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    unit = next((unit for ending, unit in _UNITS.items() if family.name.endswith(ending)), "")
    if family.type == "histogram":
        points = list(_histogram_points(family.samples, began, now))
        return Metric(name, family.documentation, unit, Histogram(points, AggregationTemporality.CUMULATIVE))
    is_counter = family.type == "counter"
    numbers = [
        NumberDataPoint(dict(sample.labels), began if is_counter else 0, now, sample.value)
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
    if is_counter:
        return Metric(name, family.documentation, unit, Sum(numbers, AggregationTemporality.CUMULATIVE, True))
    return Metric(name, family.documentation, unit, Gauge(numbers))


def _histogram_points(samples: Iterable[Sample], began: int, now: int) -> Iterator[HistogramDataPoint]:
    """Prometheus' buckets count all that is below their bound, OpenTelemetry's what is between two."""
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = defaultdict(list)
    sums: dict[tuple[tuple[str, str], ...], float] = defaultdict(float)
    for sample in samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        key = tuple(sorted(labels.items()))
        if sample.name.endswith("_bucket"):
            buckets[key].append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            sums[key] = sample.value
    for key, below in buckets.items():
        below.sort()
        counts = [int(count) for _, count in below]
        apart = [count - before for count, before in zip(counts, [0, *counts], strict=False)]
        bounds = [bound for bound, _ in below[:-1]]
        unknown: Any = None  # the extremes, which the protocol lets one leave out
        yield HistogramDataPoint(dict(key), began, now, counts[-1], sums[key], apart, bounds, unknown, unknown)


class MetricsPush:
    """``interval``: seconds between two exports. A collector that takes none is tried again with the next one."""

    def __init__(
        self, registry: CollectorRegistry, exporter: MetricExporter, resource: Resource, interval: float
    ) -> None:
        self._registry = registry
        self._exporter = exporter
        self._resource = resource
        self._interval = interval
        self._began = time.time_ns()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics-push", daemon=True)

    def start(self) -> None:
        """Begin with the first interval."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.push()

    def push(self) -> None:
        """Export once."""
        try:
            data = metrics_data(self._registry, self._resource, self._began, time.time_ns())
            self._exporter.export(data, timeout_millis=_PATIENCE_MILLIS)
        except Exception:
            _log.exception("metrics could not be sent")

    def close(self) -> None:
        """Export for the last time."""
        self._stop.set()
        self.push()
        self._exporter.shutdown()
