"""What a server holds does not grow with the calls that it has answered, nor with those who made them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import types
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message

from ift_serve.client import AsyncClient, Prompt, ServerError
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.v1 import adapter_pb2, adapter_pb2_grpc, inference_pb2, inference_pb2_grpc
from tests.server.conftest import text_prompt
from tests.support.adapters import write_random
from tests.support.serving import serving

PROMPT = Prompt.from_tokens((7,) * 6)
LONG = Prompt.from_tokens((7,) * 3000)


async def _left(client: AsyncClient) -> None:
    async with client.stream(PROMPT, max_new_tokens=30, ignore_eos=True) as stream:
        async for _ in stream:
            break


async def _cancelled(client: AsyncClient) -> None:
    call = asyncio.ensure_future(client.generate(PROMPT, max_new_tokens=60, ignore_eos=True))
    await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.wait({call})


CALLS: dict[str, Callable[[AsyncClient], Awaitable[Any]]] = {
    "whole": lambda client: client.generate(PROMPT, max_new_tokens=3),
    "streamed": lambda client: client.stream(PROMPT, max_new_tokens=3).result(),
    "scored": lambda client: client.score(PROMPT, [(3, 4)]),
    "too long": lambda client: client.generate(LONG),
    "not a number": lambda client: client.generate(PROMPT, temperature=float("nan")),
    "a refused stream": lambda client: client.stream(LONG).result(),
    "no adapter": lambda client: client.generate(PROMPT, adapter="nope"),
    "no directory": lambda client: client.load_adapter("x", "nope"),
    "late": lambda client: client.generate(PROMPT, max_new_tokens=60, ignore_eos=True, timeout=0.005),
    "left": _left,
    "cancelled": _cancelled,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(model_directory: Path) -> AsyncIterator[tuple[Server, AsyncClient]]:
    engine = {"model": str(model_directory), "dtype": "float32", "total_blocks": 64, "threads": 1}
    config = ServerConfig.model_validate({"engine": engine, "port": 0, "metrics_port": None, "drain_timeout": 5})
    async with serving(config) as found:
        yield found


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.disable()
    gc.freeze()  # only what is made from here on is looked through, and not all modules, twice for each kind of call
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.unfreeze()
    gc.enable()


async def _ended(server: Server) -> None:
    """Wait until the server's side of all calls is over."""
    deadline = time.monotonic() + 60
    while server.parts.guard.in_flight or len(server.engine._pending):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # gRPC closes a call after its handler


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", CALLS)
async def test_nothing_of_a_call_waits_for_the_collector(
    running: tuple[Server, AsyncClient], without_collector: None, kind: str
) -> None:
    """In circles with its error's frames a refused request would stay, a megabyte each, for thousands of requests."""
    server, client = running
    for _ in range(4):
        with contextlib.suppress(ServerError):
            await CALLS[kind](client)
    await _ended(server)
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    left = [one for one in gc.garbage if isinstance(one, types.FrameType | types.TracebackType | Message | Exception)]
    assert not left


def _held() -> tuple[int, int]:
    """Objects that the collector knows, and entries of all containers."""
    gc.collect()
    known = gc.get_objects()
    kinds = (dict, list, set, deque, Counter, OrderedDict)
    return len(known), sum(len(one) for one in known if type(one) in kinds)


async def test_callers_and_adapters_that_come_and_go_leave_nothing(
    server_config: Callable[..., ServerConfig], root: Path, metadata: BaseMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ift_serve.sharing.accounts._REMEMBERED_CLIENTS", 16)
    write_random(root / "one", metadata, seed=1)
    config = server_config(trusted_proxies=["127.0.0.0/8"], adapter_roots=[root])
    async with (
        serving(config) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        inference = inference_pb2_grpc.InferenceServiceStub(channel)
        adapters = adapter_pb2_grpc.AdapterServiceStub(channel)

        async def visit(number: int) -> None:
            """A caller that nobody has seen before, with an adapter and a request of its own."""
            caller = (("x-forwarded-for", f"10.{number // 65536}.{number // 256 % 256}.{number % 256}"),)
            name = f"a{number}"
            sampling = inference_pb2.Sampling(max_new_tokens=2)
            await adapters.LoadAdapter(
                adapter_pb2.LoadAdapterRequest(name=name, path="one"), metadata=caller, timeout=60
            )
            request = inference_pb2.GenerateRequest(prompt=text_prompt(), sampling=sampling, adapter=name)
            await inference.Generate(request, metadata=caller, timeout=60)
            await adapters.UnloadAdapter(adapter_pb2.UnloadAdapterRequest(name=name), metadata=caller, timeout=60)
            missing = inference_pb2.GenerateRequest(prompt=text_prompt(), sampling=sampling, adapter=name)
            with pytest.raises(grpc.aio.AioRpcError):
                await inference.Generate(missing, metadata=caller, timeout=60)

        async def visits(numbers: range) -> tuple[int, int]:
            for number in numbers:
                await visit(number)
            await _ended(server)
            return _held()

        await visits(range(40))
        objects, entries = await visits(range(40, 60))
        later_objects, later_entries = await visits(range(60, 140))
        # Less than one of either for each of the eighty.
        assert later_objects - objects < 80 and later_entries - entries < 80
