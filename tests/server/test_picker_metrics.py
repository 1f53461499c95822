"""What an endpoint picker reads of a server, by the rules of its model server protocol.

The reading is written after the rules of the protocol (its metrics by name, an info gauge whose value is a time and of
whose series the latest counts, lists with commas), as a picker applies them to the text of a scrape.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ift_serve.client import AsyncClient, Client
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from tests.frontend.test_engine_client import until
from tests.support.adapters import write_random
from tests.support.serving import serving

Make = Callable[..., ServerConfig]


@dataclass
class Endpoint:
    """A server as a picker knows it."""

    waiting: int
    running: int
    kv_usage: float
    block_size: int
    blocks: int
    active: set[str]
    queued: set[str]
    max_active: int
    when: float


def names(listed: str) -> set[str]:
    return {name.strip() for name in listed.split(",") if name.strip()}


def picked(text: str) -> Endpoint:
    """One scrape. Raises KeyError where a metric is missing."""
    families = {family.name: family for family in text_string_to_metric_families(text)}

    def gauge(name: str) -> Any:
        family = families[name]
        assert family.type == "gauge"
        return max(family.samples, key=lambda sample: sample.timestamp or 0)

    adapters = families["vllm:lora_requests_info"]
    assert adapters.type == "gauge"
    latest = max(adapters.samples, key=lambda sample: sample.value)
    assert set(latest.labels) == {"max_lora", "running_lora_adapters", "waiting_lora_adapters"}
    shape = gauge("vllm:cache_config_info").labels
    return Endpoint(
        waiting=int(gauge("vllm:num_requests_waiting").value),
        running=int(gauge("vllm:num_requests_running").value),
        kv_usage=gauge("vllm:kv_cache_usage_perc").value,
        block_size=int(shape["block_size"]),
        blocks=int(shape["num_gpu_blocks"]),
        active=names(latest.labels["running_lora_adapters"]),
        queued=names(latest.labels["waiting_lora_adapters"]),
        max_active=int(latest.labels["max_lora"]),
        when=latest.value,
    )


def scraped(server: Server) -> Endpoint:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=10) as answer:
        return picked(answer.read().decode())


async def look(server: Server) -> Endpoint:
    return await asyncio.to_thread(scraped, server)


async def test_a_picker_sees_queue_cache_and_which_adapter_is_where(
    server_config: Make, metadata: BaseMetadata, root: Path
) -> None:
    for name in ("one", "two"):
        write_random(root / name, metadata, None, seed=len(name), rank=2)
    config = server_config(
        adapter_roots=[root], metrics_port=0, picker_metrics=True, engine={"max_sequences": 2, "adapter_slots": 1}
    )
    async with serving(config) as (server, client):
        idle = await look(server)
        assert (idle.waiting, idle.running, idle.kv_usage, idle.max_active) == (0, 0, 0.0, 1)
        assert (idle.block_size, idle.blocks) == (server.engine.model.block_size, 64)
        assert idle.active == idle.queued == set() and abs(idle.when - time.time()) < 60
        for name in ("one", "two"):
            await client.load_adapter(name, name)
        asked = [asyncio.create_task(_long(client, name)) for name in ["one"] * 8 + ["two"]]
        await until(lambda: server.engine.stats.running_requests == 2 and len(server.engine.stats.adapter_users) == 2)
        busy = await look(server)
        assert busy.running == 2 and 1 <= busy.waiting <= 7 and 0 < busy.kv_usage <= 1
        assert busy.active == {"one"} and busy.queued == {"two"}
        assert busy.when > idle.when, "the latest of its series is the one that counts"
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await until(lambda: not server.engine.stats.running and not server.engine.stats.waiting)
        after = await look(server)
        assert (after.waiting, after.running, after.kv_usage) == (0, 0, 0.0)
        assert after.active == {"one"}, "it is still there for whoever asks for it"


async def _long(client: AsyncClient, adapter: str) -> None:
    await client.generate("the fox", adapter=adapter, temperature=0, max_new_tokens=240, ignore_eos=True)


@pytest.mark.parametrize(
    ("adapter", "told"),
    [("tone", "tone"), ("tone@3f6c", "tone"), ("", None), ("bad name\n", None), ("x" * 65, None)],
)
async def test_clients_tell_pickers_the_adapter_as_the_model(adapter: str, told: str | None) -> None:
    came: list[dict[str, Any]] = []

    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        came.append(dict(context.invocation_metadata() or ()))
        return b""

    async def stream(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        yield await answer(request, context)

    server = grpc.aio.server()
    handlers = {
        "Generate": grpc.unary_unary_rpc_method_handler(answer),
        "StreamGenerate": grpc.unary_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("ift_serve.v1.InferenceService", handlers),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with AsyncClient(address) as client:
            await client.generate("x", adapter=adapter)
            await client.stream("x", adapter=adapter).result()
        with Client(address) as blocking:
            await asyncio.to_thread(lambda: blocking.generate("x", adapter=adapter))
    finally:
        await server.stop(None)
    keys = ("x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite")
    assert [[one.get(key) for key in keys] for one in came] == [[told, told]] * 3


async def test_names_that_nobody_asks_for_are_not_exported(server_config: Make) -> None:
    async with serving(server_config(metrics_port=0)) as (server, _):
        with pytest.raises(KeyError, match="vllm:"):
            await look(server)
