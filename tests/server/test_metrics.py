"""What the operator sees: every number against work that was counted elsewhere, every name by Prometheus' rules."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import psutil
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict
from prometheus_client.parser import text_string_to_metric_families as plain

from ift_serve.client import AsyncClient, ServerError
from ift_serve.engine.protocol.stats import EngineStats
from ift_serve.frontend.engine_client import EngineClient
from ift_serve.frontend.engine_totals import EngineTotals
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.server.engine_metrics import MOST_ADAPTERS, OTHERS, EngineCollector
from tests.frontend.test_engine_client import until
from tests.server.test_adapter_restart import kill
from tests.server.test_adapters import answer, question
from tests.support.serving import serving

_UNITS = ("_seconds", "_bytes")
_SCALED = ("_milliseconds", "_ms", "_minutes", "_kib", "_mib", "_percent", "_micros")


def scraped(server: Server) -> dict[str, float]:
    """Samples by name and labels, as Prometheus reads them."""
    text = generate_latest(server.metrics.registry).decode()
    found = {}
    for family in plain(text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def check_names(registry: CollectorRegistry) -> None:
    """What `promtool check metrics` complains of."""
    families = list(strict(openmetrics(registry).decode()))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.documentation and family.type != "unknown", family.name
        assert not family.name.endswith((*_SCALED, "_counter", "_gauge", "_histogram")), family.name
        assert not any(word in family.name.split("_") for word in ("total", "count", "sum", "bucket")), family.name
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name.endswith(("_total", "_created")), sample.name
            elif family.type == "gauge":
                assert not sample.name.endswith("_total"), sample.name


async def generate(client: AsyncClient, count: int, tokens: int) -> None:
    for number in range(count):
        await answer(client, number=number, tokens=tokens)


async def test_counts_are_those_of_the_work_and_go_on_over_a_restart(
    server_config: Callable[..., ServerConfig],
) -> None:
    async with serving(server_config(), process=True) as (server, client):
        check_names(server.metrics.registry)
        assert scraped(server)["ift_cache_blocks_free"] == 64, "before the first step"
        await generate(client, 3, 8)
        before = scraped(server)
        assert before["ift_generated_tokens_total"] == before["ift_engine_generated_tokens_total"] == 24
        assert before["ift_calls_total{code=OK,method=Generate}"] == 3
        assert before["ift_candidates_finished_total{reason=length}"] == 3
        assert before["ift_engine_steps_total"] == before["ift_engine_step_seconds_count"] >= 24
        assert 0 < before["ift_engine_step_seconds_sum"] < 60
        assert before["ift_queue_seconds_count"] == before["ift_first_token_seconds_count"] == 3
        assert before["ift_cache_blocks_free"] == before["ift_cache_blocks"] == 64, "reusable blocks are free"
        assert 0 < before["ift_cache_blocks_reusable"] < 64
        await kill(server)
        await generate(client, 2, 8)
        after = scraped(server)
        counters = [name for name in before if "_total" in name or name.endswith(("_count", "_sum"))]
        assert all(after[name] >= before[name] for name in counters)
        assert after["ift_engine_generated_tokens_total"] == 40
        assert after["ift_engine_steps_total"] - before["ift_engine_steps_total"] >= 16
        assert after["ift_engine_restarts_total"] == 1 and after["ift_engine_hangs_total"] == 0
        assert isinstance(server.engine, EngineClient)
        engine = psutil.Process(server.engine.engine_pid)
        assert after["ift_process_resident_memory_bytes{process=engine}"] == pytest.approx(
            engine.memory_info().rss, rel=0.2
        )
        assert after["ift_process_open_fds{process=front}"] == pytest.approx(psutil.Process().num_fds(), abs=8)
        assert after["ift_process_cpu_seconds_total{process=engine}"] > sum(engine.cpu_times()[:2]) / 2
        check_names(server.metrics.registry)


async def test_calls_are_counted_by_the_way_they_ended(server_config: Callable[..., ServerConfig]) -> None:
    name = "ift_calls_total{code=%s,method=Generate}"
    async with serving(server_config(), process=True) as (server, client):
        await answer(client)
        assert isinstance(server.engine, EngineClient) and server.engine.engine_pid is not None
        os.kill(server.engine.engine_pid, signal.SIGSTOP)
        with pytest.raises(ServerError) as late:
            await client.generate(question(), max_new_tokens=8, timeout=0.3)
        assert late.value.code == "DEADLINE_EXCEEDED"
        await until(lambda: scraped(server)["ift_calls_in_flight"] == 0)
        leaving = asyncio.create_task(client.generate(question(), max_new_tokens=8, timeout=60))
        await until(lambda: scraped(server)["ift_calls_in_flight"] == 1)
        leaving.cancel()
        await until(lambda: scraped(server)["ift_calls_in_flight"] == 0)
        os.kill(server.engine.engine_pid, signal.SIGCONT)
        counts = scraped(server)
        assert [counts.get(name % code) for code in ("OK", "DEADLINE_EXCEEDED", "CANCELLED")] == [1, 1, 1]


def test_adapters_with_a_label_are_bounded() -> None:
    class Engine:
        stats = EngineStats(adapter_users={f"a{n}@v": n + 1 for n in range(100)})

    family = EngineCollector(Engine())._adapters()  # type: ignore[arg-type]
    values = {sample.labels["adapter"]: sample.value for sample in family.samples}
    assert len(values) == MOST_ADAPTERS + 1
    assert values["a99@v"] == 100 and sum(values.values()) == sum(range(1, 101))
    assert values[OTHERS] == sum(range(1, 101 - MOST_ADAPTERS))


def test_totals_add_up_over_the_lives_of_engines() -> None:
    totals, steps = EngineTotals(), list[float]()
    totals.on_step = steps.append
    for life in ([1, 3, 3], [2], [0, 5]):
        totals.begin()
        for count in life:
            totals.take(EngineStats(steps=count, step_seconds=0.5 * count, generated_tokens=10 * count))
    assert (totals.steps, totals.step_seconds, totals.generated_tokens) == (10, 5.0, 100)
    assert steps == [0.5] * 10
