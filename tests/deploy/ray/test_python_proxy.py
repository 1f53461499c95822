"""A replica behind Ray's proxy in Python, where there is no HAProxy. Slow, as test_cluster.py is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ift_serve.client import AsyncClient, ServerError
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.support.ray_deployed import PROMPTS, QUICK, SAMPLING, Deployed, cancel_calls, nothing_runs
from tests.support.ray_nodes import missing, ray_nodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]
_LONG = SAMPLING | {"max_new_tokens": 4000}


@pytest.fixture(scope="module")
def deployed(model: Path, root: Path) -> Iterator[Deployed]:
    if reason := missing():
        pytest.skip(reason)
    with ray_nodes(1, QUICK) as nodes:
        found = Deployed(nodes, model, root)
        assert found.deploy(replicas=1, ingress="python")["ingress"] == "python"
        yield found


async def test_answers_are_those_of_a_server(client: AsyncClient, texts: list[str]) -> None:
    for prompt, expected in zip(PROMPTS[:4], texts, strict=False):
        assert (await client.generate(prompt, **SAMPLING)).text == expected
        pieces = [piece.text async for piece in client.stream(prompt, **SAMPLING)]
        assert "".join(pieces) == expected and len(pieces) > 1


async def test_health_is_answered(deployed: Deployed) -> None:
    async with grpc.aio.insecure_channel(deployed.ingress) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_errors_keep_their_code_and_those_of_unary_calls_their_details(client: AsyncClient) -> None:
    with pytest.raises(ServerError) as whole:
        await client.generate("the fox", temperature=-1.0)
    assert whole.value.code == "INVALID_ARGUMENT" and whole.value.request_id
    assert [violation.field for violation in whole.value.violations] == ["sampling.temperature"]
    with pytest.raises(ServerError) as stream:
        await client.stream("the fox", temperature=-1.0).result()
    assert stream.value.code == "INVALID_ARGUMENT" and "temperature" in stream.value.message


async def test_cancellation_reaches_the_engine(client: AsyncClient, deployed: Deployed) -> None:
    await cancel_calls(client, PROMPTS[:4], _LONG)
    await nothing_runs(deployed)


async def test_the_callers_deadline_reaches_the_engine(deployed: Deployed) -> None:
    async with grpc.aio.insecure_channel(deployed.ingress) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        sampling = pb.Sampling(temperature=0, max_new_tokens=4000, ignore_eos=True)
        request = pb.GenerateRequest(prompt=pb.Prompt(text=pb.TextPrompt(text="the fox")), sampling=sampling)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await stub.Generate(request, metadata=(("x-ift-timeout", "0S"),))
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await nothing_runs(deployed)
