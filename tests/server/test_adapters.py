"""Adapters over the wire: loaded, reloaded, unloaded and watched while requests run."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from ift_serve.client import AsyncClient, Message, Prompt, ServerError
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engines.thread import local_engine
from ift_serve.frontend.engine_client import EngineClient, EngineError
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.components.config import ComponentsConfig
from ift_serve.server.adapter_service import AdapterRoots
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.support.adapters import EVERYTHING, write_random
from tests.support.serving import serving

CONTEXT = ComponentsConfig(instruction_encoder=16, attention_bias=True, segment_embedding=True)


def question(number: int = 0) -> Prompt:
    return Prompt.from_messages([Message("user", f"Say hello to the fox {number}")])


async def answer(client: AsyncClient, adapter: str = "", number: int = 0, tokens: int = 12) -> tuple[str, str]:
    found = await client.generate(
        question(number), adapter=adapter, temperature=0.0, max_new_tokens=tokens, ignore_eos=True
    )
    return found.text, found.adapter


async def test_an_adapter_is_loaded_used_and_unloaded(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path
) -> None:
    write_random(root / "one", metadata, EVERYTHING, seed=1)
    async with serving(server_config(adapter_roots=[root])) as (server, client):
        base, named = await answer(client)
        assert named == "" and server.engine.stats.adapter_bytes == 0
        loaded = await client.load_adapter("tuned", "one")
        assert loaded.state == "ready" and loaded.path == "one" and loaded.rank == 4
        assert set(loaded.components) == {"lora", *EVERYTHING.names}
        text, named = await answer(client, "tuned")
        assert named == f"tuned@{loaded.version}" and text != base
        assert await answer(client, named) == (text, named)
        assert (await answer(client))[0] == base
        assert [a.version for a in await client.adapters()] == [loaded.version]
        assert (await client.adapter("tuned")).bytes == loaded.bytes == server.engine.stats.adapter_bytes > 0
        scores = await client.score(question(), ["the fox"], adapter="tuned")
        plain = await client.score(question(), ["the fox"])
        assert scores.adapter == named and scores.scores[0].log_prob != plain.scores[0].log_prob
        with pytest.raises(ServerError) as unknown:
            await answer(client, "tunde")
        assert unknown.value.code == "NOT_FOUND"
        assert "tuned" not in unknown.value.message, "only admins may list adapters"
        gone = await client.unload_adapter("tuned")
        assert [a.state for a in gone] == ["unloaded"]
        assert server.engine.stats.adapter_bytes == 0 and await client.adapters() == []
        with pytest.raises(ServerError, match="not loaded") as caught:
            await answer(client, "tuned")
        assert caught.value.code == "NOT_FOUND"


async def test_reloading_under_load_fails_nothing_and_mixes_nothing(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path
) -> None:
    for seed in (1, 2):
        write_random(root / f"v{seed}", metadata, CONTEXT, seed=seed, rank=3 * seed)
    config = server_config(adapter_roots=[root], engine={"max_sequences": 8, "total_blocks": 96})
    async with serving(config) as (_, client):
        solo: dict[tuple[str, int], str] = {}
        for seed in (1, 2):
            version = (await client.load_adapter("a", f"v{seed}")).version
            for number in range(4):
                text, named = await answer(client, "a", number)
                assert named == f"a@{version}"
                solo[named, number] = text
        for number in range(4):
            solo["", number] = (await answer(client, "", number))[0]
        done, answered = asyncio.Event(), asyncio.Condition()
        seen: set[str] = set()

        async def ask(worker: int) -> None:
            number = worker
            while not done.is_set():
                number = (number + 1) % 4
                text, named = await answer(client, "a" if worker % 3 else "", number)
                assert text == solo[named, number], f"an answer of {named or 'the base'} is not its own"
                async with answered:
                    seen.add(named)
                    answered.notify_all()

        async with asyncio.TaskGroup() as group:
            for worker in range(6):
                group.create_task(ask(worker))
            for turn in range(8):
                seen.clear()
                loaded = await client.load_adapter("a", f"v{turn % 2 + 1}")
                # However fast loads are beside answers: each version answers before the next one comes, and so does
                # the base.
                async with answered:
                    await answered.wait_for(lambda: seen >= {f"a@{loaded.version}", ""})  # noqa: B023
            done.set()


async def test_unloading_waits_for_requests_in_flight_and_no_longer_than_told(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path
) -> None:
    write_random(root / "one", metadata, seed=1)
    async with serving(server_config(adapter_roots=[root])) as (_, client):
        await client.load_adapter("a", "one")
        stream = client.stream(question(), adapter="a", temperature=0.0, max_new_tokens=60, ignore_eos=True)
        first = await anext(aiter(stream))
        assert first is not None
        unloading = asyncio.create_task(client.unload_adapter("a"))
        async for change in client.watch_adapters():
            if change.state == "draining":
                break
        with pytest.raises(ServerError) as refused:
            await answer(client, "a")
        assert refused.value.code == "NOT_FOUND"
        async for _ in stream:
            pass
        assert [a.state for a in await unloading] == ["unloaded"]
        await client.load_adapter("a", "one")
        stream = client.stream(question(), adapter="a", temperature=0.0, max_new_tokens=150, ignore_eos=True)
        await anext(aiter(stream))
        assert [a.state for a in await client.unload_adapter("a", drain_seconds=0)] == ["unloaded"]
        with pytest.raises(ServerError, match="was unloaded") as cancelled:
            async for _ in stream:
                pass
        assert cancelled.value.code == "CANCELLED"


async def test_what_cannot_be_loaded_is_explained_and_the_old_version_serves_on(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path, tmp_path: Path
) -> None:
    write_random(root / "one", metadata, seed=1)
    broken = write_random(root / "broken", metadata, seed=2)
    (broken / "adapter_model.safetensors").write_bytes(b"nothing of the kind")
    write_random(tmp_path / "outside", metadata, seed=3)
    (root / "link").symlink_to(tmp_path / "outside")
    async with serving(server_config(adapter_roots=[root])) as (_, client):
        version = (await client.load_adapter("a", "one")).version
        with pytest.raises(ServerError, match=r"adapter_model\.safetensors") as caught:
            await client.load_adapter("a", "broken")
        assert caught.value.code == "FAILED_PRECONDITION"
        assert (await answer(client, "a"))[1] == f"a@{version}"
        for path in ("missing", "../outside", str(tmp_path / "outside"), "link", "", "."):
            with pytest.raises(ServerError) as refused:
                await client.load_adapter("b", path)
            assert refused.value.code == "INVALID_ARGUMENT", path
        with pytest.raises(ServerError, match="not a name"):
            await client.load_adapter("a/b", "one")
        with pytest.raises(ServerError, match="adapter") as wrong:
            await answer(client, "no such@thing!")
        assert wrong.value.code == "INVALID_ARGUMENT"


async def test_watchers_see_every_change(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path
) -> None:
    write_random(root / "one", metadata, seed=1)
    write_random(root / "two", metadata, seed=2)
    async with serving(server_config(adapter_roots=[root])) as (_, client):
        await client.load_adapter("first", "one")
        changes: list[tuple[str, str]] = []
        watching = client.watch_adapters()
        begun = await anext(watching)
        assert (begun.name, begun.state) == ("first", "ready")

        async def follow() -> None:
            async for change in watching:
                changes.append((change.name, change.state))
                if changes.count(("second", "unloaded")) == 2:
                    return

        following = asyncio.create_task(follow())
        await client.load_adapter("second", "one")
        await client.load_adapter("second", "two")
        await client.unload_adapter("second")
        await asyncio.wait_for(following, 10)
        second = [state for name, state in changes if name == "second"]
        assert second == ["loading", "ready", "loading", "ready", "unloaded", "unloaded"]


async def test_managing_adapters_takes_the_admin_role(
    server_config: Callable[..., ServerConfig], root: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("generate app app-secret-0123456789\nadmin ops ops-secret-0123456789\n")
    tokens.chmod(0o600)
    async with serving(server_config(adapter_roots=[root], tokens_file=tokens)) as (server, _):
        target = f"127.0.0.1:{server.port}"
        async with AsyncClient(target, token="app-secret-0123456789") as client:
            with pytest.raises(ServerError) as refused:
                await client.adapters()
            assert refused.value.code == "PERMISSION_DENIED"
        async with AsyncClient(target, token="ops-secret-0123456789") as client:
            assert await client.adapters() == []


async def test_more_adapters_than_slots_are_all_served(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path
) -> None:
    for seed in range(6):
        write_random(root / f"a{seed}", metadata, seed=seed)
    config = server_config(adapter_roots=[root], engine={"adapter_slots": 2, "total_blocks": 96})
    async with serving(config) as (_, client):
        for seed in range(6):
            await client.load_adapter(f"a{seed}", f"a{seed}")
        alone = [await answer(client, f"a{seed}") for seed in range(6)]
        assert len({text for text, _ in alone}) > 3
        together = await asyncio.gather(*(answer(client, f"a{i % 6}") for i in range(24)))
        assert together == [alone[i % 6] for i in range(24)]


async def test_adapters_given_at_the_start_come_back_after_the_engine_died(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path
) -> None:
    path = write_random(root / "one", metadata, seed=1)
    async with serving(server_config(adapters={"tuned": path}), process=True) as (server, client):
        before = await answer(client, "tuned")
        assert isinstance(server.engine, EngineClient) and server.engine.engine_pid is not None
        restarting = asyncio.Event()
        server.engine.on_state(lambda state: restarting.set() if state == "restarting" else None)
        os.kill(server.engine.engine_pid, signal.SIGKILL)
        await asyncio.wait_for(restarting.wait(), 10)
        assert await answer(client, "tuned") == before


async def test_a_watch_does_not_hold_up_the_servers_end(server_config: Callable[..., ServerConfig]) -> None:
    config = server_config()
    server = Server(config, local_engine(config.engine))
    await server.start()
    async with AsyncClient(f"127.0.0.1:{server.port}", timeout=60) as client:

        async def watch() -> list[str]:
            return [change.name async for change in client.watch_adapters()]

        watching = asyncio.create_task(watch())
        while not server.engine.adapters._watchers:  # noqa: ASYNC110 - nobody there could set an event
            await asyncio.sleep(0.005)
        await server.stop()
        assert await watching == []


async def test_no_caller_can_take_an_id_that_loads_use(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path
) -> None:
    write_random(root / "one", metadata, seed=1)
    async with serving(server_config(adapter_roots=[root])) as (server, client):
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        request = pb.StreamGenerateRequest(
            prompt=pb.Prompt(text=pb.TextPrompt(text="the fox")),
            sampling=pb.Sampling(temperature=0, max_new_tokens=200, ignore_eos=True),
        )
        calls = [stub.StreamGenerate(request, metadata=(("x-request-id", name),)) for name in ("adapter", "/adapter")]
        for call in calls:
            await call.read()
        for _ in range(3):
            assert (await client.load_adapter("tuned", "one")).state == "ready"
        for call in calls:
            call.cancel()
        await channel.close(None)


async def test_a_directory_swapped_for_a_link_after_the_check_is_refused(
    metadata: BaseMetadata, root: Path, tmp_path: Path, model_directory: Path
) -> None:
    write_random(root / "mine", metadata, seed=1)
    private = write_random(tmp_path / "private", metadata, seed=2)
    path, found = AdapterRoots([root]).find("mine")
    shutil.rmtree(path)
    path.symlink_to(private)
    config = EngineConfig(model=str(model_directory), dtype="float32", total_blocks=16, threads=1)
    async with local_engine(config) as engine:
        with pytest.raises(EngineError, match="mine") as caught:
            await engine.load_adapter("tuned", str(path), "mine", str(found))
        assert caught.value.kind is FailureKind.UNFIT
