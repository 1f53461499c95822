"""One caller cannot take all of a server: queue, running sequences, calls, priority, room for admins."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ift_serve.client import AsyncClient
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.v1 import adapter_pb2, adapter_pb2_grpc, inference_pb2_grpc, model_pb2, model_pb2_grpc
from ift_serve.v1 import inference_pb2 as pb
from tests.server.conftest import greedy, text_prompt
from tests.support.serving import serving

Make = Callable[..., ServerConfig]
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    lines = [f"generate {name} {name}-has-a-secret-token" for name in ("crowd", "few", "third")]
    path.write_text("\n".join([*lines, "admin operator operator-has-a-secret-token"]))
    path.chmod(0o600)
    return path


class Caller:
    """Stubs that send one caller's token."""

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        self.metadata = (("authorization", f"Bearer {name}-has-a-secret-token"),)
        self._channel = channel

    def generate(self, new_tokens: int, priority: int = 0) -> Any:
        request = pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(new_tokens), priority=priority)
        stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
        return stub.Generate(request, metadata=self.metadata, timeout=120)

    def stream(self, new_tokens: int, priority: int = 0) -> Any:
        request = pb.StreamGenerateRequest(prompt=text_prompt(), sampling=greedy(new_tokens), priority=priority)
        stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
        return stub.StreamGenerate(request, metadata=self.metadata, timeout=120)

    def score(self, priority: int) -> Any:
        request = pb.ScoreRequest(text=pb.ScoreText(text="the fox and the dog"), priority=priority)
        return inference_pb2_grpc.InferenceServiceStub(self._channel).Score(
            request, metadata=self.metadata, timeout=120
        )

    def model(self) -> Any:
        request = model_pb2.GetModelRequest()
        return model_pb2_grpc.ModelServiceStub(self._channel).GetModel(request, metadata=self.metadata, timeout=120)

    def adapters(self) -> Any:
        request = adapter_pb2.ListAdaptersRequest()
        stub = adapter_pb2_grpc.AdapterServiceStub(self._channel)
        return stub.ListAdapters(request, metadata=self.metadata, timeout=120)

    def watch(self) -> Any:
        stub = adapter_pb2_grpc.AdapterServiceStub(self._channel)
        return stub.WatchAdapters(adapter_pb2.WatchAdaptersRequest(), metadata=self.metadata)

    def load(self, path: str) -> Any:
        request = adapter_pb2.LoadAdapterRequest(name="one", path=path)
        stub = adapter_pb2_grpc.AdapterServiceStub(self._channel)
        return stub.LoadAdapter(request, metadata=self.metadata, timeout=120)


@contextlib.asynccontextmanager
async def callers(config: ServerConfig) -> AsyncIterator[tuple[Server, grpc.aio.Channel, list[Caller]]]:
    async with (
        serving(config) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield server, channel, [Caller(channel, name) for name in ("crowd", "few", "third", "operator")]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what the engine does has no event
            await asyncio.sleep(0.002)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_five_hundred_long_requests_keep_no_short_one_out(server_config: Make, tokens: Path) -> None:
    config = server_config(tokens_file=tokens, engine={"max_waiting": 20, "max_sequences": 2}, max_streams=1000)
    async with callers(config) as (server, _, (crowd, few, *_)):
        ended: list[str] = []
        answers = [asyncio.ensure_future(_outcome(crowd.generate(100), ended)) for _ in range(60)]
        await until(lambda: server.engine.stats.waiting == 20 and "RESOURCE_EXHAUSTED" in ended)
        short = few.generate(2)
        answers += [asyncio.ensure_future(_outcome(crowd.generate(100), ended)) for _ in range(440)]
        assert (await short).usage.generated_tokens == 2
        assert ended.count("OK") < 20, "the short one waited for those who were there before it"
        outcomes = await asyncio.gather(*answers)
        # Whoever was taken is answered in full; the others were told when to come back.
        assert outcomes.count("OK") >= 20 and outcomes.count("OK") + outcomes.count("RESOURCE_EXHAUSTED") == 500


async def _outcome(call: Any, ended: list[str]) -> str:
    try:
        response = await call
        assert response.usage.generated_tokens == 100
        ended.append("OK")
    except grpc.aio.AioRpcError as error:
        ended.append(error.code().name)
    return ended[-1]


async def test_running_answers_of_one_caller_make_room(server_config: Make, tokens: Path) -> None:
    config = server_config(tokens_file=tokens, engine={"max_sequences": 4})
    async with callers(config) as (_, _, (crowd, few, *_)):
        streams = [crowd.stream(240) for _ in range(4)]
        for stream in streams:
            await stream.read()
        assert (await few.generate(2)).usage.generated_tokens == 2
        assert not any(stream.done() for stream in streams)
        # Those who made room go on to their end.
        assert [(await _last(stream)).usage.generated_tokens for stream in streams] == [240] * 4


async def _last(stream: Any) -> pb.StreamGenerateResponse:
    last = pb.StreamGenerateResponse()
    while (message := await stream.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
        last = message
    return last


async def test_priority_is_bounded_by_role(server_config: Make, tokens: Path) -> None:
    async with callers(server_config(tokens_file=tokens, limits={"max_priority": 3})) as (_, _, (crowd, *_, operator)):
        for priority in (-100, 3):
            await crowd.generate(1, priority)
            await crowd.score(priority)
        for call in (crowd.generate(1, 4), crowd.score(4), crowd.generate(1, 100), crowd.generate(1, -101)):
            error = await refused(call)
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "priority" in str(error.details()) and "from -100 to 3 " in str(error.details())
        error = await _first(crowd.stream(1, 4))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        await operator.generate(1, 100)
        assert (await refused(operator.generate(1, 101))).code() is grpc.StatusCode.INVALID_ARGUMENT


async def _first(stream: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stream))
    return caught.value


async def test_priority_on_everything_starves_nobody(server_config: Make, tokens: Path) -> None:
    config = server_config(tokens_file=tokens, engine={"max_sequences": 2})
    async with callers(config) as (server, _, (crowd, few, *_)):
        urgent = [asyncio.ensure_future(_outcome(crowd.generate(100, 10), [])) for _ in range(12)]
        await until(lambda: server.engine.stats.waiting == 10)
        patient = await few.generate(20, -100)
        assert patient.usage.generated_tokens == 20
        assert sum(one.done() for one in urgent) < 12, "it went last"
        assert await asyncio.gather(*urgent) == ["OK"] * 12


async def test_calls_in_flight_are_shared(server_config: Make, tokens: Path) -> None:
    config = server_config(tokens_file=tokens, max_calls=8)
    async with callers(config) as (_, _, (crowd, few, third, *_)):
        held = []
        for caller, count in ((crowd, 4), (few, 2), (third, 1)):
            for _ in range(count):
                held.append(caller.stream(240))
                await held[-1].read()
            error = await refused(caller.model()) if caller is not third else None
            if error is not None:
                assert error.code() is EXHAUSTED and f"{count} calls of this caller" in str(error.details())
        for stream in held:
            stream.cancel()


async def test_admins_and_health_have_room_when_callers_take_all(server_config: Make, tokens: Path, root: Path) -> None:
    config = server_config(tokens_file=tokens, max_calls=2, max_watches=2, max_admin_calls=1, adapter_roots=[root])
    async with callers(config) as (_, channel, (crowd, few, _, operator)):
        held = [crowd.stream(240), few.stream(240)]
        for stream in held:
            await stream.read()
        assert (await refused(operator.model())).code() is EXHAUSTED
        watches = [operator.watch() for _ in range(2)]
        assert list((await operator.adapters()).adapters) == []
        assert (await refused(operator.load("missing"))).code() is not EXHAUSTED
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for call in (*held, *watches):
            call.cancel()


async def test_without_tokens_an_address_is_one_caller_and_admins_have_room(server_config: Make) -> None:
    async with (
        serving(server_config(max_calls=4)) as (server, client),
        AsyncClient(f"127.0.0.1:{server.port}", timeout=60, retries=0) as other,
    ):
        streams = [client.stream("the fox", max_new_tokens=240, temperature=0) for _ in range(2)]
        for stream in streams:
            await anext(stream)
        with pytest.raises(Exception, match="2 calls of this caller"):
            await other.model()
        assert await other.adapters() == []
        for stream in streams:
            stream.cancel()
