"""Replicas on a Ray cluster of two nodes, each a network namespace: what callers get while both come and go.

Slow: a cluster takes most of a minute to start. `pytest -m slow tests/deploy/ray`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ift_serve.client import AsyncClient, ServerError
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.support.ray_deployed import PROMPTS, QUICK, SAMPLING, Deployed, Load, cancel_calls, nothing_runs
from tests.support.ray_nodes import missing, ray_nodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest.fixture(scope="module")
def deployed(model: Path, root: Path) -> Iterator[Deployed]:
    if reason := missing():
        pytest.skip(reason)
    with ray_nodes(2, QUICK) as nodes:
        found = Deployed(nodes, model, root)
        assert found.deploy(replicas=2)["ingress"] == "haproxy"
        yield found


async def test_every_call_is_answered_as_by_one_server(client: AsyncClient, solo: AsyncClient) -> None:
    one, other = await client.model(), await solo.model()
    assert one.fingerprint == other.fingerprint
    assert await client.tokenize("the fox") == await solo.tokenize("the fox")
    scores = [await each.score("the fox", [" ran", " and"]) for each in (client, solo)]
    assert scores[0].scores == scores[1].scores
    whole = await solo.generate("the fox", **SAMPLING)
    assert (await client.generate("the fox", **SAMPLING)).text == whole.text
    pieces = [piece.text async for piece in client.stream("the fox", **SAMPLING)]
    assert "".join(pieces) == whole.text and len(pieces) > 1


async def test_errors_arrive_with_their_details(client: AsyncClient) -> None:
    for call in (client.generate("the fox", temperature=-1.0), client.stream("the fox", temperature=-1.0).result()):
        with pytest.raises(ServerError) as refused:
            await call
        assert refused.value.code == "INVALID_ARGUMENT" and refused.value.request_id
        assert [violation.field for violation in refused.value.violations] == ["sampling.temperature"]


async def test_the_callers_deadline_reaches_the_engine(deployed: Deployed) -> None:
    """In metadata alone, so that gRPC ends nothing: the answer is what there is by then, or the call's end is said."""
    async with grpc.aio.insecure_channel(deployed.ingress) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        sampling = pb.Sampling(temperature=0, max_new_tokens=4000, ignore_eos=True)
        request = pb.GenerateRequest(prompt=pb.Prompt(text=pb.TextPrompt(text="the fox")), sampling=sampling)
        ends = set()
        for seconds in ("1S", "0S"):
            try:
                answer = await stub.Generate(request, metadata=(("x-ift-timeout", seconds),))
                ends.add(pb.FinishReason.Name(answer.candidates[0].finish_reason))
            except grpc.aio.AioRpcError as late:
                ends.add(late.code().name)
    assert ends <= {"FINISH_REASON_DEADLINE", "DEADLINE_EXCEEDED"} and "DEADLINE_EXCEEDED" in ends
    await nothing_runs(deployed)


async def test_a_call_that_is_cancelled_leaves_the_engine(client: AsyncClient, deployed: Deployed) -> None:
    long = SAMPLING | {"max_new_tokens": 4000}
    await cancel_calls(client, PROMPTS, long)
    await nothing_runs(deployed)


async def test_an_adapter_is_loaded_everywhere_in_one_version(
    client: AsyncClient, solo: AsyncClient, deployed: Deployed
) -> None:
    loaded = await client.load_adapter("tone", "one")
    await solo.load_adapter("tone", "one")
    expected = await solo.generate("the fox", adapter="tone", **SAMPLING)
    found = await asyncio.gather(*(client.generate("the fox", adapter="tone", **SAMPLING) for _ in range(24)))
    assert {answer.text for answer in found} == {expected.text}
    assert {answer.adapter for answer in found} == {f"tone@{loaded.version}"}
    newer = await client.load_adapter("tone", "two")
    again = await asyncio.gather(*(client.generate("the fox", adapter="tone", **SAMPLING) for _ in range(24)))
    assert {answer.adapter for answer in again} == {f"tone@{newer.version}"}
    assert len(deployed.counts()) == 2
    await client.unload_adapter("tone")
    codes = set()
    for _ in range(8):
        with pytest.raises(ServerError) as gone:
            await client.generate("the fox", adapter="tone", max_new_tokens=1)
        codes.add(gone.value.code)
    assert codes == {"NOT_FOUND"}


async def test_replicas_added_and_removed_under_load_lose_no_answer(
    client: AsyncClient, deployed: Deployed, texts: list[str]
) -> None:
    version = (await client.load_adapter("tone", "three")).version
    load = Load(client, texts)
    load.start(8)
    await load.more(20)
    await asyncio.to_thread(deployed.deploy, replicas=3)
    await load.more(40)
    assert len(await asyncio.to_thread(deployed.counts)) == 3
    named = await asyncio.gather(*(client.generate("the fox", adapter="tone", **SAMPLING) for _ in range(24)))
    assert {answer.adapter for answer in named} == {f"tone@{version}"}, "the new one has what was loaded before it came"
    await asyncio.to_thread(deployed.deploy, replicas=1)
    async with asyncio.timeout(90):
        while len(await asyncio.to_thread(deployed.counts)) > 1:
            await load.more(5)
    await load.more(40)
    await load.stop()
    assert (load.wrong, load.errors) == ([], Counter()) and load.answers > 100
    await client.unload_adapter("tone")


async def test_a_node_killed_under_load_costs_no_answer_that_may_be_asked_again(
    deployed: Deployed, texts: list[str]
) -> None:
    """Calls in flight on the node end with an error that says so; none is answered wrongly; others are not touched."""
    await asyncio.to_thread(deployed.deploy, replicas=2, replicas_per_node=1)
    async with AsyncClient(deployed.ingress, timeout=60) as client:
        load = Load(client, texts)
        load.start(8)
        await load.more(30)
        await asyncio.to_thread(deployed.nodes.kill, 2)
        await load.more(60)
        await load.stop()
    print(load.errors, load.answers)
    assert load.wrong == [] and load.errors.total() <= 8
    codes = {told.partition(":")[0] for told in load.errors}
    assert codes <= {"UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED"}, load.errors
