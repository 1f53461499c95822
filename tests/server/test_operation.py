"""Identity, encryption, health, metrics, logs, overload, drain: what an operator relies on."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from pydantic import ValidationError

from ift_serve.client import AsyncClient, ServerError
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.server.app import Server
from ift_serve.server.auth import Authenticator
from ift_serve.server.body import RECEIVE_FACTOR
from ift_serve.server.config import ServerConfig
from ift_serve.system.logs import JsonFormatter
from ift_serve.v1 import adapter_pb2, adapter_pb2_grpc, inference_pb2_grpc, model_pb2, model_pb2_grpc
from ift_serve.v1 import inference_pb2 as pb
from tests.server.conftest import greedy, text_prompt, trailing
from tests.support.certificates import certificate

Make = Callable[..., ServerConfig]


@asynccontextmanager
async def _running(config: ServerConfig) -> AsyncIterator[Server]:
    server = Server(config, local_engine(config.engine))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def test_roles(server_config: Make, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("# callers\ngenerate app app-secret-0123456789\nadmin ops ops-secret-0123456789\n")
    async with (
        _running(server_config(tokens_file=tokens)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        inference, adapters = (
            inference_pb2_grpc.InferenceServiceStub(channel),
            adapter_pb2_grpc.AdapterServiceStub(channel),
        )
        request, load = pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(2)), adapter_pb2.LoadAdapterRequest()

        async def code(call: Any) -> str:
            try:
                await call
            except grpc.aio.AioRpcError as error:
                return str(error.code().name)
            return "OK"

        assert await code(inference.Generate(request)) == "UNAUTHENTICATED"
        assert await code(inference.Generate(request, metadata=_bearer("app-secret-01234567890"))) == "UNAUTHENTICATED"
        assert await code(inference.Generate(request, metadata=_bearer("app-secret-0123456789"))) == "OK"
        assert await code(adapters.LoadAdapter(load, metadata=_bearer("app-secret-0123456789"))) == "PERMISSION_DENIED"
        assert await code(adapters.LoadAdapter(load, metadata=_bearer("ops-secret-0123456789"))) == "INVALID_ARGUMENT"
        assert await code(inference.Generate(request, metadata=_bearer("ops-secret-0123456789"))) == "OK"
        check = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert check.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("text", "reason"),
    [("generate app", "line 1"), ("root app secret-0123456789", "role"), ("admin app short", "16"), ("", "no tokens")],
)
def test_a_bad_tokens_file_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        Authenticator(path)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    authority = certificate(tmp_path, "authority", None)
    for name in ("server", "client"):
        certificate(tmp_path, name, authority)
    certificate(tmp_path, "stranger", certificate(tmp_path, "other", None))
    return tmp_path


def _credentials(folder: Path, name: str | None) -> grpc.ChannelCredentials:
    own = (
        (None, None) if name is None else ((folder / f"{name}.key").read_bytes(), (folder / f"{name}.crt").read_bytes())
    )
    return grpc.ssl_channel_credentials((folder / "authority.crt").read_bytes(), *own)


@pytest.mark.parametrize(
    ("mutual", "name", "welcome"),
    [(False, None, True), (True, "client", True), (True, None, False), (True, "stranger", False)],
)
async def test_tls(server_config: Make, certificates: Path, mutual: bool, name: str | None, welcome: bool) -> None:
    config = server_config(
        host="localhost",
        tls_certificate=certificates / "server.crt",
        tls_key=certificates / "server.key",
        tls_client_authority=certificates / "authority.crt" if mutual else None,
    )
    async with (
        _running(config) as server,
        grpc.aio.secure_channel(f"localhost:{server.port}", _credentials(certificates, name)) as channel,
    ):
        call = model_pb2_grpc.ModelServiceStub(channel).GetModel(model_pb2.GetModelRequest(), timeout=60)
        if welcome:
            assert (await call).architecture == "LlamaForCausalLM"
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_without_tls_only_this_machine_is_served() -> None:
    engine = EngineConfig(model="x")
    with pytest.raises(ValidationError, match="reachable from other machines"):
        ServerConfig(engine=engine, host="0.0.0.0")
    assert ServerConfig(engine=engine, host="0.0.0.0", allow_insecure=True)
    assert ServerConfig(engine=engine, host="::1")


async def test_reflection_lists_and_describes_the_services(server: Server) -> None:
    def describe() -> tuple[list[str], list[str]]:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            file = database.FindFileContainingSymbol("ift_serve.v1.InferenceService")
            return list(database.get_services()), [m.name for m in file.service[0].method]

    services, methods = await asyncio.to_thread(describe)
    assert {"ift_serve.v1.InferenceService", "ift_serve.v1.ModelService", "grpc.health.v1.Health"} <= set(services)
    assert methods == ["Generate", "StreamGenerate", "Score", "Tokenize"]


async def test_the_model_is_described(server: Server) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        model = await model_pb2_grpc.ModelServiceStub(channel).GetModel(model_pb2.GetModelRequest())
    assert (model.limits.context_length, model.vocabulary_size, model.dtype) == (256, 290, "float32")
    assert model.chat_template and model.fingerprint and model.version
    assert model.load.free_blocks == model.load.total_blocks == 64


async def test_metrics(server_config: Make) -> None:
    async with (
        _running(server_config(metrics_port=0)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        request = pb.StreamGenerateRequest(prompt=text_prompt(), sampling=greedy(120))
        assert [message async for message in stub.StreamGenerate(request)]
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Generate(pb.GenerateRequest())
        url, refused = f"http://127.0.0.1:{server.metrics_port}/metrics", 'ift_calls_total{code="INVALID_ARGUMENT",'
        text = ""
        async with asyncio.timeout(60):
            while refused not in text:  # a refused call is counted when its status has been sent
                text = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values["ift_generated_tokens_total"] == "120.0"
    assert values['ift_calls_total{code="OK",method="StreamGenerate"}'] == "1.0"
    assert values['ift_calls_total{code="INVALID_ARGUMENT",method="Generate"}'] == "1.0"
    assert values['ift_candidates_finished_total{reason="length"}'] == "1.0"
    assert values["ift_first_token_seconds_count"] == "1.0"
    assert float(values["ift_inter_token_seconds_count"]) >= 1
    assert values["ift_cache_blocks"] == "64.0"


async def test_logs_have_the_request_id_and_no_prompt(server_config: Make, caplog: pytest.LogCaptureFixture) -> None:
    secret = "the fox and the dog"
    caplog.set_level(logging.INFO, "ift_serve")
    for wanted, log_prompts in ((False, False), (True, True)):
        caplog.clear()
        async with (
            _running(server_config(log_prompts=log_prompts)) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(
                pb.GenerateRequest(prompt=text_prompt(secret), sampling=greedy(2)),
                metadata=(("x-request-id", "mine-7"),),
            )
            await call
            assert dict(await call.trailing_metadata())["x-request-id"] == "mine-7"
        lines = [JsonFormatter().format(record) for record in caplog.records]
        entry = next(e for e in map(json.loads, lines) if e["message"] == "call")
        assert (entry["request_id"], entry["method"], entry["code"], entry["generated_tokens"]) == (
            "mine-7",
            "Generate",
            "OK",
            2,
        )
        assert any(secret in line for line in lines) == wanted


async def test_overload_is_refused_with_a_delay_and_those_inside_are_answered(server_config: Make) -> None:
    config = server_config(engine={"max_waiting": 2, "max_sequences": 1})
    async with _running(config) as server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        request = pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(40))
        alone = (await stub.Generate(request)).candidates[0].text
        results = await asyncio.gather(*(stub.Generate(request) for _ in range(12)), return_exceptions=True)
    answered = [r for r in results if isinstance(r, pb.GenerateResponse)]
    refused = [r for r in results if isinstance(r, grpc.aio.AioRpcError)]
    assert len(answered) >= 2 and refused and len(answered) + len(refused) == 12
    assert all(r.candidates[0].text == alone for r in answered)
    for error in refused:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        delay = error_details_pb2.RetryInfo()
        assert any(
            d.Unpack(delay) for d in status_pb2.Status.FromString(trailing(error)["grpc-status-details-bin"]).details
        )
        assert delay.retry_delay.ToNanoseconds() > 0


async def test_too_many_calls_are_refused(server_config: Make) -> None:
    async with (
        _running(server_config(max_calls=1)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        stream = stub.StreamGenerate(pb.StreamGenerateRequest(prompt=text_prompt(), sampling=greedy(200)))
        await stream.read()
        with pytest.raises(grpc.aio.AioRpcError, match="in flight already"):
            await stub.Tokenize(pb.TokenizeRequest(prompt=text_prompt()))
        stream.cancel()


async def test_draining_finishes_what_runs_and_says_not_serving_first(server_config: Make) -> None:
    config = server_config(drain_notice=0.2)
    server = Server(config, local_engine(config.engine))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        stream = aiter(stub.StreamGenerate(pb.StreamGenerateRequest(prompt=text_prompt(), sampling=greedy(60))))
        await anext(stream)
        stopping = asyncio.ensure_future(server.stop())
        await asyncio.sleep(0)
        status = (await health.Check(health_pb2.HealthCheckRequest())).status
        assert status == health_pb2.HealthCheckResponse.NOT_SERVING
        tokens = [m async for m in stream]
        assert tokens[-1].usage.generated_tokens == 60
        await stopping


async def test_a_large_request_is_refused_by_name_and_not_tried_again(server: Server, stub: Any) -> None:
    largest = server.config.limits.request_bytes
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Tokenize(pb.TokenizeRequest(prompt=text_prompt("x" * (largest + 1))))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"at most {largest}" in str(caught.value.details())
    # What gRPC itself cuts off has no details, which tells clients not to come back.
    async with AsyncClient(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(ServerError) as refused:
            await client.tokenize("x" * (RECEIVE_FACTOR * largest + 1))
    assert refused.value.code == "RESOURCE_EXHAUSTED" and refused.value.retry_after is None
