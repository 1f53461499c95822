"""Both clients against a real server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from concurrent import futures
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from ift_serve.client import AsyncClient, Client, Message, Prompt, ServerError
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.support.models import tiny_llama


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    engine = EngineConfig(model=str(tiny_llama(tmp_path)), dtype="float32", total_blocks=64, threads=1)
    running = Server(ServerConfig(engine=engine, port=0, metrics_port=None, drain_timeout=2), local_engine(engine))
    await running.start()
    yield running
    await running.stop()


def test_both_clients_have_the_same_names() -> None:
    def names(kind: type) -> dict[str, list[str]]:
        public = {n: f for n, f in inspect.getmembers(kind, inspect.isfunction) if not n.startswith("_")}
        return {name: list(inspect.signature(function).parameters) for name, function in public.items()}

    assert names(Client) == names(AsyncClient)


async def test_async_client(server: Server) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}") as client:
        model = await client.wait_until_ready()
        assert model.context_length == 256 and "score" in model.features
        answer = await client.generate("Say hello", temperature=0, max_new_tokens=12, ignore_eos=True, tokens=True)
        assert answer.finish_reason == "length" and len(answer.candidates[0].tokens) == 12
        assert answer.request_id and str(answer) == answer.text
        stream = client.stream("Say hello", temperature=0, max_new_tokens=12, ignore_eos=True)
        pieces = [piece.text async for piece in stream]
        assert "".join(pieces) == answer.text
        assert (await stream.result()).usage.generated_tokens == 12
        chat = await client.generate(
            [Message("system", "Say hello"), Message("user", "the fox", context="and the dog")], max_new_tokens=3
        )
        assert chat.usage.prompt_tokens > 10
        scores = await client.score("the fox", [" and", [9, 10]], token_log_probs=True)
        assert [s.token_count for s in scores.scores] == [1, 2]
        assert (await client.score_text("the fox and the dog")).scores[0].log_prob < 0
        tokens = await client.tokenize(Prompt(instruction="Say", context="hello"))
        assert {"template", "instruction", "context"} == set(tokens.segments)
        assert (
            await client.generate(Prompt.from_tokens(tokens.token_ids), max_new_tokens=2)
        ).usage.prompt_tokens == len(tokens.token_ids)


async def test_sync_client_from_threads(server: Server) -> None:
    def work() -> list[str]:
        with Client(f"127.0.0.1:{server.port}") as client, futures.ThreadPoolExecutor(4) as pool:
            client.wait_until_ready()
            whole = client.generate("Say hello", temperature=0, max_new_tokens=10, ignore_eos=True).text
            ask = lambda _: client.stream("Say hello", temperature=0, max_new_tokens=10, ignore_eos=True).result().text  # noqa: E731
            assert "127.0.0.1" in repr(client)
            return [whole, *pool.map(ask, range(6))]

    texts = await asyncio.to_thread(work)
    assert len(set(texts)) == 1


async def test_errors_name_the_field(server: Server) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(ServerError) as caught:
            await client.generate("x", temperature=-1)
        assert caught.value.code == "INVALID_ARGUMENT"
        assert caught.value.violations[0].field == "sampling.temperature"
        assert caught.value.request_id in str(caught.value)
        with pytest.raises(TypeError, match="unknown option 'temprature'"):
            await client.generate("x", temprature=1)  # type: ignore[call-arg]


async def test_leaving_a_stream_frees_the_server(server: Server) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}") as client:
        async with client.stream("x", max_new_tokens=200, ignore_eos=True) as stream:
            await anext(stream)
        async with asyncio.timeout(60):
            while (await client.model()).load["running"]:
                pass


def test_secrets_are_not_shown() -> None:
    client = Client("127.0.0.1:1", token="very-secret")
    assert "very-secret" not in repr(client) and "token" in repr(client)
    client.close()


async def test_no_server_is_an_unavailable_error() -> None:
    async with AsyncClient("127.0.0.1:1", retries=0) as client:
        with pytest.raises(ServerError, match="UNAVAILABLE"):
            await client.generate("x")
        with pytest.raises(ServerError, match="no server"):
            await client.wait_until_ready(timeout=0.2)


class _Flaky(inference_pb2_grpc.InferenceServiceServicer):
    """Fails as told, then answers. A stand-in for a server in trouble, which a real one is only now and then."""

    def __init__(self, failures: list[tuple[grpc.StatusCode, float]], pieces_before: int = 0) -> None:
        self.failures = failures
        self.pieces_before = pieces_before
        self.calls = 0

    async def _maybe_fail(self, context: Any) -> None:
        self.calls += 1
        if not self.failures:
            return
        code, delay = self.failures.pop(0)
        status = status_pb2.Status(code=code.value[0], message="trouble")
        if delay:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromTimedelta(timedelta(seconds=delay))
            status.details.add().Pack(retry)
        await context.abort(code, "trouble", (("grpc-status-details-bin", status.SerializeToString()),))

    async def Generate(self, request: Any, context: Any) -> Any:
        await self._maybe_fail(context)
        return pb.GenerateResponse(candidates=[pb.Candidate(text="fine")])

    async def StreamGenerate(self, request: Any, context: Any) -> Any:
        for _ in range(self.pieces_before):
            yield pb.StreamGenerateResponse(deltas=[pb.CandidateDelta(text="a")])
        await self._maybe_fail(context)
        yield pb.StreamGenerateResponse(deltas=[pb.CandidateDelta(text="fine")])

    async def Score(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    Tokenize = Score


Flaky = Callable[[_Flaky], Any]


@pytest_asyncio.fixture
async def flaky() -> AsyncIterator[Flaky]:
    servers = []

    async def start(servicer: _Flaky) -> AsyncClient:
        server = grpc.aio.server()
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        client = AsyncClient(f"127.0.0.1:{port}", timeout=60)
        servers.append((server, client))
        return client

    yield start
    for server, client in servers:
        await client.close()
        await server.stop(0)


async def test_safe_failures_are_tried_again(flaky: Flaky) -> None:
    servicer = _Flaky([(grpc.StatusCode.UNAVAILABLE, 0), (grpc.StatusCode.RESOURCE_EXHAUSTED, 0.05)])
    client = await flaky(servicer)
    assert (await client.generate("x")).text == "fine"
    assert servicer.calls == 3


async def test_a_stream_is_tried_again_only_before_its_first_piece(flaky: Flaky) -> None:
    client = await flaky(_Flaky([(grpc.StatusCode.UNAVAILABLE, 0.01)]))
    assert (await client.stream("x").result()).text == "fine"
    servicer = _Flaky([(grpc.StatusCode.UNAVAILABLE, 0.01)], pieces_before=1)
    client = await flaky(servicer)
    with pytest.raises(ServerError, match="UNAVAILABLE"):
        await client.stream("x").result()
    assert servicer.calls == 1


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED]
)
async def test_other_failures_are_not(flaky: Flaky, code: grpc.StatusCode) -> None:
    servicer = _Flaky([(code, 0)] * 2)
    client = await flaky(servicer)
    with pytest.raises(ServerError, match=code.name):
        await client.generate("x")
    assert servicer.calls == 1


async def test_a_delay_longer_than_the_timeout_is_not_waited_for(flaky: Flaky) -> None:
    client = await flaky(_Flaky([(grpc.StatusCode.RESOURCE_EXHAUSTED, 900.0)]))
    with pytest.raises(ServerError, match="RESOURCE_EXHAUSTED"):
        await client.generate("x", timeout=60)
