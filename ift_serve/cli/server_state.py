"""The state of a running server as `ift-serve top` shows it, from two scrapes of its metrics and its admin rpcs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ift_serve.cli.scraped_metrics import Scrape, quantile, rate


@dataclass(frozen=True)
class Latency:
    """Of one kind of wait, in milliseconds; None where nothing was waited for."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True)
class AdapterLine:
    """``state``, ``bytes``: None where the rpc that tells them is not to be had."""

    name: str
    in_flight: int
    state: str | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class ServerState:
    """Rates are per second, over the time between the two scrapes; shares are 0 to 1."""

    model: str
    is_ready: bool
    calls_in_flight: int
    calls_per_second: float
    failed_calls_per_second: float
    requests_waiting: int
    requests_running: int
    sequences_running: int
    cache_share: float
    cache_reusable_share: float
    cache_hit_share: float | None
    generated_tokens_per_second: float
    prompt_tokens_per_second: float
    queue: Latency
    first_token: Latency
    inter_token: Latency
    step: Latency
    preemptions: int
    engine_restarts: int
    cpu_cores: dict[str, float] = field(default_factory=dict)
    memory_bytes: dict[str, int] = field(default_factory=dict)
    adapters: list[AdapterLine] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be read, and why."""


def _latency(before: Scrape, after: Scrape, name: str) -> Latency:
    p50, p99 = (quantile(before, after, name, share) for share in (0.5, 0.99))
    return Latency(None if p50 is None else 1000 * p50, None if p99 is None else 1000 * p99)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _failed(before: Scrape, after: Scrape) -> float:
    """Calls a second that ended otherwise than OK."""
    seconds = after.when - before.when
    if seconds <= 0:
        return 0.0
    earlier, later = (scrape.by_label("ift_calls_total", "code") for scrape in (before, after))
    return sum(max(0.0, count - earlier.get(code, 0.0)) for code, count in later.items() if code != "OK") / seconds


def server_state(
    before: Scrape,
    after: Scrape,
    model: str = "",
    adapters: Mapping[str, tuple[str, int]] | None = None,
    notes: list[str] | None = None,
) -> ServerState:
    """``adapters``: state and bytes by ``name@version``, where the server tells them."""
    blocks, free = after.value("ift_cache_blocks"), after.value("ift_cache_blocks_free")
    reusable = after.value("ift_cache_blocks_reusable")
    prompt, cached = (rate(before, after, f"ift_{kind}_tokens_total") for kind in ("prompt", "cached"))
    cpu = before.by_label("ift_process_cpu_seconds_total", "process")
    seconds = max(after.when - before.when, 1e-9)
    in_flight = after.by_label("ift_adapter_requests_in_flight", "adapter")
    known = adapters or {}
    return ServerState(
        model=model,
        is_ready=after.value("ift_engine_ready") == 1,
        calls_in_flight=int(after.value("ift_calls_in_flight")),
        calls_per_second=rate(before, after, "ift_calls_total"),
        failed_calls_per_second=_failed(before, after),
        requests_waiting=int(after.value("ift_requests_waiting")),
        requests_running=int(after.value("ift_requests_running")),
        sequences_running=int(after.value("ift_sequences_running")),
        cache_share=_share(blocks - free, blocks),
        cache_reusable_share=_share(reusable, blocks),
        cache_hit_share=cached / prompt if prompt else None,
        generated_tokens_per_second=rate(before, after, "ift_engine_generated_tokens_total"),
        prompt_tokens_per_second=prompt,
        queue=_latency(before, after, "ift_queue_seconds"),
        first_token=_latency(before, after, "ift_first_token_seconds"),
        inter_token=_latency(before, after, "ift_inter_token_seconds"),
        step=_latency(before, after, "ift_engine_step_seconds"),
        preemptions=int(after.value("ift_engine_preemptions_total")),
        engine_restarts=int(after.value("ift_engine_restarts_total")),
        cpu_cores={
            process: max(0.0, now - cpu.get(process, now)) / seconds
            for process, now in after.by_label("ift_process_cpu_seconds_total", "process").items()
        },
        memory_bytes={
            process: int(held)
            for process, held in after.by_label("ift_process_resident_memory_bytes", "process").items()
        },
        adapters=sorted(
            (
                AdapterLine(name, int(in_flight.get(name, 0)), *known.get(name, (None, None)))
                for name in {**in_flight, **known}
            ),
            key=lambda line: (-line.in_flight, line.name),
        ),
        notes=notes or [],
    )
