"""A deadline in metadata: as good as gRPC's own, whichever is sooner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from ift_serve.client.connection import Connection
from ift_serve.server.app import Server
from ift_serve.server.carried_deadline import carried_timeout, sooner
from ift_serve.server.config import ServerConfig
from ift_serve.server.errors import StatusError
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.server.conftest import greedy, text_prompt
from tests.support.models import tiny_llama
from tests.support.serving import serving


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1500m", 1.5),
        ("2S", 2.0),
        ("3M", 180.0),
        ("1H", 3600.0),
        ("250000u", 0.25),
        ("99999999n", 0.099999999),
        ("0m", 0),
    ],
)
def test_a_timeout_is_written_as_grpc_writes_it(written: str, seconds: float) -> None:
    assert carried_timeout([("a", "b"), ("x-ift-timeout", written)]) == pytest.approx(seconds)


@pytest.mark.parametrize("written", ["", "5", "S", "-1S", "1.5S", "123456789S", "1s", b"1S", "1S "])
def test_what_is_no_timeout_is_refused_by_name(written: str | bytes) -> None:
    with pytest.raises(StatusError, match="x-ift-timeout") as refused:
        carried_timeout([("x-ift-timeout", written)])
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_the_sooner_of_two_counts() -> None:
    assert carried_timeout([("x-ift-timeout", "5S"), ("x-ift-timeout", "2S")]) == 2.0
    assert sooner(None, None) is None and sooner(3.0, None) == sooner(None, 3.0) == sooner(3.0, 4.0) == 3.0


@pytest.mark.parametrize("seconds", [0.0, 0.0004, 0.25, 120.0, 99_999.0, 100_000.0, 1e9])
def test_the_client_says_what_the_server_reads(seconds: float) -> None:
    metadata = Connection().metadata_for(None, seconds)
    said = carried_timeout(metadata)
    assert said is not None and said == pytest.approx(min(seconds, 99_999_999), rel=1e-4, abs=0.001)
    assert carried_timeout(Connection().metadata_for(None, None)) is None


async def test_it_ends_generation_where_grpc_knows_of_none(
    server_config: Callable[..., ServerConfig], tmp_path: Path
) -> None:
    model = tiny_llama(tmp_path, context=4096)
    request = pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(4000))
    async with (
        serving(server_config(engine={"model": str(model), "total_blocks": 300})) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        answer = await stub.Generate(request, metadata=(("x-ift-timeout", "900m"),))
    assert answer.candidates[0].finish_reason == pb.FINISH_REASON_DEADLINE


async def test_one_that_is_over_is_said_as_grpc_says_it(server: Server, stub: Any) -> None:
    request = pb.TokenizeRequest(prompt=text_prompt())
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await stub.Tokenize(request, metadata=(("x-ift-timeout", "0n"),))
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
