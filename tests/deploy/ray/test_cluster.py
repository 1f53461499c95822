"""Replicas on a Ray cluster of two nodes, each a network namespace: what callers get while both come and go.

Slow: a cluster takes most of a minute to start. `pytest -m slow tests/deploy/ray`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import yaml

from ift_serve.client import AsyncClient, ServerError
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.support.adapters import write_random
from tests.support.models import tiny_llama
from tests.support.ray_nodes import RayNodes, missing, ray_nodes
from tests.support.threaded_server import threaded_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="module"),
]
PROMPTS = [f"the fox and the dog number {number} ran to the river" for number in range(12)]
SAMPLING: dict[str, Any] = {"temperature": 1.0, "seed": 7, "max_new_tokens": 48, "ignore_eos": True}
ADAPTERS = ("one", "two", "three", "four")
QUICK = {
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "500ms",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_health_check_failure_threshold": "2",
    "RAY_health_check_period_ms": "1000",
}


class Deployed:
    """The application, as `ift-serve deploy ray` puts it on the nodes."""

    def __init__(self, nodes: RayNodes, model: Path, root: Path) -> None:
        self.nodes, self._model, self.root = nodes, model, root
        self.ingress = f"{nodes.addresses[1]}:9000"

    def deploy(self, **settings: Any) -> dict[str, Any]:
        """Put it there, or update it; what the command says."""
        engine = {"model": str(self._model), "dtype": "float32", "total_blocks": 2048, "max_sequences": 8, "threads": 1}
        server = {"engine": engine | settings.pop("engine", {}), "adapter_roots": [str(self.root)]}
        chosen = {"drain_timeout": 60, "health_interval": 1, "ingress": "haproxy", "server": server, **settings}
        path = self.nodes.folder / "deploy.yaml"
        path.write_text(yaml.safe_dump(chosen))
        command = Path(sys.executable).parent / "ift-serve"
        done = self.nodes.run(str(command), "deploy", "ray", str(path), "--json")
        assert done.returncode == 0, done.stderr[-4000:]
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def counts(self) -> list[dict[str, float]]:
        """What each replica has counted."""
        program = (
            "import json, ray; from ray import serve; ray.init(address='auto', log_to_driver=False); "
            "print(json.dumps(serve.get_deployment_handle('engine', 'ift-serve').broadcast('counts').results()))"
        )
        done = self.nodes.run(sys.executable, "-c", program)
        assert done.returncode == 0, done.stderr[-4000:]
        found: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
        return found


@dataclass
class Load:
    """Callers who ask, half of them for streams, until they are told to stop; answers are held against solo runs."""

    client: AsyncClient
    solo: list[str]
    answers: int = 0
    wrong: list[tuple[int, str]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    _stop: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, callers: int) -> None:
        self._tasks = [asyncio.create_task(self._call(number)) for number in range(callers)]

    async def more(self, answers: int, seconds: float = 120) -> None:
        """Until so many more answers have come."""
        wanted = self.answers + answers
        async with asyncio.timeout(seconds):
            while self.answers < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _call(self, number: int) -> None:
        while not self._stop:
            index = number % len(PROMPTS)
            number += 1
            try:
                text = await self._ask(index, streamed=number % 2 == 0)
            except ServerError as error:
                self.errors[f"{error.code}: {error.message[:120]}"] += 1
                continue
            self.answers += 1
            if text != self.solo[index]:
                self.wrong.append((index, text))

    async def _ask(self, index: int, *, streamed: bool) -> str:
        if not streamed:
            return (await self.client.generate(PROMPTS[index], **SAMPLING)).text
        return (await self.client.stream(PROMPTS[index], **SAMPLING).result()).text


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"), context=4096)


@pytest.fixture(scope="module")
def root(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("adapters")
    metadata = BaseMetadata.of_directory(model)
    for seed, name in enumerate(ADAPTERS, 1):
        write_random(found / name, metadata, seed=seed)
    return found


@pytest.fixture(scope="module")
def solo_server(model: Path, root: Path) -> Iterator[str]:
    yield from threaded_server(model, root)


@pytest.fixture(scope="module")
def deployed(model: Path, root: Path) -> Iterator[Deployed]:
    if reason := missing():
        pytest.skip(reason)
    with ray_nodes(2, QUICK) as nodes:
        found = Deployed(nodes, model, root)
        assert found.deploy(replicas=2)["ingress"] == "haproxy"
        yield found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def solo(solo_server: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(solo_server, timeout=60) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def texts(solo: AsyncClient) -> list[str]:
    """What each prompt is answered with when nothing else is asked."""
    return [(await solo.generate(prompt, **SAMPLING)).text for prompt in PROMPTS]


@pytest_asyncio.fixture(loop_scope="module")
async def client(deployed: Deployed) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(deployed.ingress, timeout=60) as found:
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
    streams = [client.stream(prompt, **long) for prompt in PROMPTS]
    for stream in streams:
        await anext(stream)
    unary = [asyncio.create_task(client.generate(prompt, **long)) for prompt in PROMPTS]
    await asyncio.sleep(0)
    for stream in streams:
        stream.cancel()
    for task in unary:
        task.cancel()
    await asyncio.gather(*unary, return_exceptions=True)
    await nothing_runs(deployed)


async def nothing_runs(deployed: Deployed) -> None:
    """Until no engine has a request: each of those asked for here would take longer than that."""
    async with asyncio.timeout(120):
        while any(count["ift_requests"] for count in await asyncio.to_thread(deployed.counts)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


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
