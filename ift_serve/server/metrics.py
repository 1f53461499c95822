"""Prometheus metrics of the server, on a port of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ift_serve.frontend.engine_client import BaseEngineClient
from ift_serve.server.engine_metrics import EngineCollector, ProcessCollector
from ift_serve.server.picker_metrics import PickerCollector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What the server counts. One registry an instance, so that several servers fit in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.calls = Counter("ift_calls", "Calls ended, by method and status code", ["method", "code"], registry=r)
        self.in_flight = Gauge("ift_calls_in_flight", "Calls being answered", registry=r)
        self.prompt_tokens = Counter("ift_prompt_tokens", "Prompt tokens", registry=r)
        self.cached_tokens = Counter("ift_cached_tokens", "Prompt tokens reused from the cache", registry=r)
        self.generated_tokens = Counter("ift_generated_tokens", "Generated tokens", registry=r)
        self.finished = Counter("ift_candidates_finished", "Candidates by finish reason", ["reason"], registry=r)
        self.first_token = Histogram(
            "ift_first_token_seconds", "Seconds from arrival to the first token", buckets=_SECONDS, registry=r
        )
        self.inter_token = Histogram(
            "ift_inter_token_seconds", "Seconds between tokens of a candidate", buckets=_SECONDS, registry=r
        )
        self.queue = Histogram("ift_queue_seconds", "Seconds in the queue", buckets=_SECONDS, registry=r)
        self.step = Histogram(
            "ift_engine_step_seconds", "Seconds of a step of the engine", buckets=_SECONDS, registry=r
        )
        self.connections_closed = Counter(
            "ift_connections_closed", "Connections closed because their address had more than its share", registry=r
        )
        self.audit_lines_lost = Counter(
            "ift_audit_lines_lost", "Lines of the audit log that could not be written nor kept waiting", registry=r
        )
        self.loop_blocked = Counter(
            "ift_event_loop_blocked_seconds", "Seconds in which nobody was answered", registry=r
        )

    def watch(self, engine: BaseEngineClient, *, for_pickers: bool = False) -> None:
        """Read the engine's counts and state whenever metrics are scraped, and time its steps.

        ``for_pickers``: also by the names that endpoint pickers know.
        """
        self.registry.register(EngineCollector(engine))
        self.registry.register(ProcessCollector(engine))
        if for_pickers:
            self.registry.register(PickerCollector(engine))
        engine.totals.on_step = self.step.observe
