"""The engine's side of the metrics, read when they are scraped."""

from __future__ import annotations

import os
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ift_serve.engine.protocol.adapter import AdapterState
from ift_serve.frontend.engine_client import BaseEngineClient, EngineClient

MOST_ADAPTERS = 32
"""Adapters with a label of their own, those in most use; the others are counted together."""
OTHERS = "(others)"
_READY, _DRAINING = AdapterState.READY, AdapterState.DRAINING
_EVICTED = (AdapterState.EVICTED, AdapterState.RETURNING)


class EngineCollector(Collector):
    """Counters that go on over restarts of the engine, and gauges of its latest snapshot."""

    def __init__(self, engine: BaseEngineClient) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        yield from self._counters()
        yield from self._gauges()
        yield self._adapters()

    def _counters(self) -> Iterator[Metric]:
        engine, totals = self._engine, self._engine.totals
        for name, description, value in (
            ("ift_engine_steps", "Steps of all engines of this server", totals.steps),
            ("ift_engine_preemptions", "Sequences that lost their blocks for a while", totals.preemptions),
            ("ift_engine_prompt_tokens", "Prompt tokens of requests that got an answer", totals.prompt_tokens),
            ("ift_engine_generated_tokens", "Tokens drawn, hidden branches included", totals.generated_tokens),
            ("ift_engine_drafted_tokens", "Tokens guessed and computed before they were drawn", totals.drafted_tokens),
            ("ift_engine_accepted_tokens", "Tokens drawn without a step of their own", totals.accepted_tokens),
            ("ift_engine_restarts", "Times that an engine was started after one died", engine.restarts),
            ("ift_engine_hangs", "Engines that were killed because they made no progress", engine.hangs),
            ("ift_adapter_evictions", "Adapters that left host memory for others", totals.adapter_evictions),
            ("ift_adapter_returns", "Evicted adapters that were read again for a request", totals.adapter_returns),
            ("ift_adapters_lost", "Adapters that a restarted engine could not load again", engine.wanted.losses),
        ):
            yield CounterMetricFamily(name, description, value=value)

    def _gauges(self) -> Iterator[Metric]:
        engine, load = self._engine, self._engine.stats
        total, states = engine.model.total_blocks, [info.state for info in engine.adapters.all()]
        # Before its first step an engine has reported nothing, and nothing is in use.
        free = load.free_blocks + load.cached_blocks if load.total_blocks else total
        for name, description, value in (
            ("ift_requests_waiting", "Requests waiting for the engine", load.waiting),
            ("ift_requests_running", "Requests that the engine computes", load.running_requests),
            ("ift_sequences_running", "Sequences running in the engine", load.running),
            ("ift_cache_blocks", "Cache blocks in all", total),
            ("ift_cache_blocks_free", "Cache blocks that are free or hold only reusable prefixes", free),
            ("ift_cache_blocks_reusable", "Cache blocks that hold only reusable prefixes", load.cached_blocks),
            ("ift_adapter_bytes", "Host memory of resident adapters", load.adapter_bytes),
            ("ift_adapters", "Adapter versions in host memory", states.count(_READY) + states.count(_DRAINING)),
            ("ift_adapters_evicted", "Versions that are read again when asked for", sum(map(states.count, _EVICTED))),
            ("ift_engine_ready", "1 while the engine answers", engine.state == "ready"),
        ):
            yield GaugeMetricFamily(name, description, value=float(value))

    def _adapters(self) -> Metric:
        family = GaugeMetricFamily(
            "ift_adapter_requests_in_flight",
            "Requests in flight by adapter version; the busiest by name",
            labels=["adapter"],
        )
        users = sorted(self._engine.stats.adapter_users.items(), key=lambda item: (-item[1], item[0]))
        for name, count in users[:MOST_ADAPTERS]:
            family.add_metric([name], count)
        if len(users) > MOST_ADAPTERS:
            family.add_metric([OTHERS], sum(count for _, count in users[MOST_ADAPTERS:]))
        return family


class ProcessCollector(Collector):
    """What the server process and the engine use of the machine, from /proc. Nothing where there is none.

    The engine's computing time goes on over its restarts, less what the last moments of a life used.
    """

    def __init__(self, engine: BaseEngineClient) -> None:
        self._engine = engine
        self._pid: int | None = None
        self._seconds, self._ended_seconds = 0.0, 0.0

    def collect(self) -> Iterator[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        cpu = CounterMetricFamily("ift_process_cpu_seconds", "Computing time, user and system", labels=["process"])
        memory = GaugeMetricFamily("ift_process_resident_memory_bytes", "Resident memory", labels=["process"])
        descriptors = GaugeMetricFamily("ift_process_open_fds", "Open file descriptors", labels=["process"])
        threads = GaugeMetricFamily("ift_process_threads", "Threads", labels=["process"])
        engine = self._engine.engine_pid if isinstance(self._engine, EngineClient) else None
        followers = [] if engine is None else self._engine.model.followers
        ranks = [(f"rank-{rank}", pid) for rank, pid in enumerate(followers, 1)]
        for name, pid in (("front", os.getpid()), ("engine", engine), *ranks):
            used = None if pid is None else _used(pid)
            if name == "engine":
                cpu.add_metric([name], self._engine_seconds(pid, used[0] if used else None))
            elif used:
                cpu.add_metric([name], used[0])
            if used:
                for family, value in zip((memory, descriptors, threads), used[1:], strict=True):
                    family.add_metric([name], value)
        yield from (cpu, memory, descriptors, threads)

    def _engine_seconds(self, pid: int | None, seconds: float | None) -> float:
        if pid != self._pid:
            self._ended_seconds += self._seconds
            self._pid, self._seconds = pid, 0.0
        self._seconds = max(self._seconds, seconds or 0.0)
        return self._ended_seconds + self._seconds


def _used(pid: int) -> tuple[float, float, float, float] | None:
    """Seconds of computing, bytes resident, descriptors, threads."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), descriptors, int(fields[17])
