"""A running server on a tiny model, shared by the tests of a module; callers for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.support.models import tiny_llama


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def server_config(model_directory: Path) -> Callable[..., ServerConfig]:
    def make(engine: dict[str, Any] | None = None, **options: Any) -> ServerConfig:
        settings: dict[str, Any] = {"model": str(model_directory), "dtype": "float32", "total_blocks": 64, "threads": 1}
        defaults: dict[str, Any] = {"port": 0, "metrics_port": None, "drain_timeout": 5}
        return ServerConfig(engine=EngineConfig(**(settings | (engine or {}))), **(defaults | options))

    return make


@pytest_asyncio.fixture
async def server(server_config: Callable[..., ServerConfig]) -> AsyncIterator[Server]:
    """A server whose engine runs in a thread of this process."""
    config = server_config()
    running = Server(config, local_engine(config.engine))
    await running.start()
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def stub(server: Server) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield inference_pb2_grpc.InferenceServiceStub(channel)


def text_prompt(text: str = "the fox") -> pb.Prompt:
    return pb.Prompt(text=pb.TextPrompt(text=text))


def trailing(error: grpc.aio.AioRpcError) -> dict[str, bytes]:
    """The metadata behind an error; the details of google.rpc among them."""
    pairs: Any = error.trailing_metadata()
    return dict(pairs or ())


def greedy(new_tokens: int = 8, **options: Any) -> pb.Sampling:
    return pb.Sampling(temperature=0, max_new_tokens=new_tokens, ignore_eos=True, **options)


@pytest.fixture(scope="session")
def metadata(model_directory: Path) -> BaseMetadata:
    return BaseMetadata.of_directory(model_directory)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "adapters"
    folder.mkdir()
    return folder


def violated(error: grpc.aio.AioRpcError) -> list[str]:
    metadata: Any = error.trailing_metadata()
    packed = dict(metadata)["grpc-status-details-bin"]
    bad = error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(packed).details:
        detail.Unpack(bad)
    return [violation.field for violation in bad.field_violations]


async def refused(call: Any) -> list[str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
    assert all(field in (caught.value.details() or "") for field in violated(caught.value))
    return violated(caught.value)
