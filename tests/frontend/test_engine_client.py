"""The clients: an engine process with its death and return, and an engine thread, behind one interface."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.adapter import AdapterState
from ift_serve.engine.protocol.generate import CandidateOutput, GenerateRequest
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engines.thread import LocalEngine
from ift_serve.frontend.engine_client import BaseEngineClient, EngineClient, EngineError, EngineStartError, State
from tests.support.engine_driver import generate, solo
from tests.support.oracle_worker import build

PROMPT = [5, 17, 3, 44, 9]


def process_client(model: str = "slow", patience: float = 60.0, **config: Any) -> EngineClient:
    return EngineClient(
        EngineConfig(model=model, patience=patience, **config),
        worker_module="tests.support.oracle_worker",
        first_restart_delay=0.01,
        longest_restart_delay=0.05,
    )


@pytest.fixture(params=["process", "thread"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[BaseEngineClient]:
    one: BaseEngineClient = process_client()
    if request.param == "thread":
        one = LocalEngine(EngineConfig(model="slow"), build)
    async with one:
        yield one


async def answer(client: BaseEngineClient, request: GenerateRequest) -> dict[int, list[int]]:
    tokens: dict[int, list[int]] = {}
    async for output in client.generate(request):
        tokens.setdefault(output.candidate, []).extend(output.token_ids)
    return tokens


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in another process or thread."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nobody there could set an event
            await asyncio.sleep(0.005)


async def until_idle(client: BaseEngineClient) -> None:
    """Wait until the engine says that it holds nothing."""
    await until(lambda: client.stats.steps > 0 and not client.stats.running and not client.stats.waiting)


async def test_concurrent_calls_get_their_own_answers(client: BaseEngineClient) -> None:
    requests = [generate(f"r{i}", [*PROMPT, i], temperature=1.0, candidates=1 + i % 3) for i in range(12)]
    answers = await asyncio.gather(*(answer(client, request) for request in requests))
    assert answers == [solo(request).tokens for request in requests]
    assert client.model.name == "oracle"
    assert client.state == "ready"


async def test_outputs_stream_and_end_with_usage(client: BaseEngineClient) -> None:
    outputs = [output async for output in client.generate(generate("a", PROMPT, max_new_tokens=5))]
    assert len(outputs) > 1
    assert outputs[-1].request_finished and outputs[-1].usage is not None


async def test_scores(client: BaseEngineClient) -> None:
    request = ScoreRequest(request_id="s", token_ids=PROMPT, continuations=[[1, 2], [3]])
    expected = solo(request).score
    assert expected is not None
    assert (await client.score(request)).scores == expected.scores


async def test_refusals_are_raised_with_their_field(client: BaseEngineClient) -> None:
    with pytest.raises(EngineError) as refused:
        await answer(client, generate("a", [1000]))
    assert (refused.value.kind, refused.value.field) == (FailureKind.INVALID, "token_ids")
    with pytest.raises(EngineError) as refused:
        await client.score(ScoreRequest(request_id="s", token_ids=[1], continuations=[[1000]]))
    assert refused.value.field == "continuations[0]"


async def test_leaving_the_stream_frees_the_request(client: BaseEngineClient) -> None:
    stream = client.generate(generate("a", PROMPT, max_new_tokens=100))
    async for _ in stream:
        break
    await stream.aclose()
    await until_idle(client)
    assert client.stats.generated_tokens < 50


async def test_cancelling_the_caller_frees_the_request(client: BaseEngineClient) -> None:
    started = asyncio.Event()

    async def consume() -> None:
        async for _ in client.generate(generate("a", PROMPT, max_new_tokens=100)):
            started.set()

    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    await asyncio.wait({task})
    await until_idle(client)


async def test_abort_ends_the_call_as_cancelled(client: BaseEngineClient) -> None:
    async def abort_at_first() -> None:
        async for _ in client.generate(generate("a", PROMPT, max_new_tokens=100)):
            client.abort("a")

    with pytest.raises(EngineError) as ended:
        await abort_at_first()
    assert ended.value.kind is FailureKind.CANCELLED
    await until_idle(client)


async def test_stopping_every_candidate_ends_the_stream(client: BaseEngineClient) -> None:
    heard: list[CandidateOutput] = []
    request = generate("a", PROMPT, candidates=2, temperature=1.0, max_new_tokens=100)
    async for output in client.generate(request):
        heard.append(output)
        client.stop_candidate("a", output.candidate)
    assert sorted(output.candidate for output in heard) == [0, 1]
    await until_idle(client)


async def test_a_stopped_candidate_leaves_the_other_whole(client: BaseEngineClient) -> None:
    request = generate("a", PROMPT, candidates=2, temperature=1.0, max_new_tokens=8)
    tokens: list[int] = []
    async for output in client.generate(request):
        if output.candidate == 1:
            client.stop_candidate("a", 1)
        else:
            tokens += output.token_ids
    assert tokens == solo(request).tokens[0]


async def test_what_a_slow_consumer_misses_is_joined(client: BaseEngineClient) -> None:
    outputs: list[CandidateOutput] = []
    async for output in client.generate(generate("a", PROMPT, max_new_tokens=30)):
        if not outputs:
            await until_idle(client)
        outputs.append(output)
    assert len(outputs) == 2
    assert [token for output in outputs for token in output.token_ids] == solo(
        generate("a", PROMPT, max_new_tokens=30)
    ).tokens[0]
    assert len(outputs[1].statistics) == len(outputs[1].token_ids) == 29


async def test_an_id_in_use_is_refused(client: BaseEngineClient) -> None:
    async for _ in client.generate(generate("a", PROMPT)):
        with pytest.raises(EngineError, match="request_id"):
            await answer(client, generate("a", PROMPT))
        break


async def test_closing_fails_what_is_in_flight(client: BaseEngineClient) -> None:
    async def close_at_first() -> None:
        async for _ in client.generate(generate("a", PROMPT, max_new_tokens=400)):
            await client.close()

    with pytest.raises(EngineError) as ended:
        await close_at_first()
    assert ended.value.kind is FailureKind.UNAVAILABLE
    with pytest.raises(EngineError):
        await answer(client, generate("b", PROMPT))


@pytest.mark.parametrize("kind", ["process", "thread"])
async def test_a_model_that_cannot_be_loaded_is_told(kind: str) -> None:
    one: BaseEngineClient = process_client("broken")
    if kind == "thread":
        one = LocalEngine(EngineConfig(model="broken"), build)
    with pytest.raises(EngineStartError, match="there is nothing here"):
        await one.start()
    assert one.state == "closed"


async def test_an_engine_that_ends_before_it_is_ready_is_told() -> None:
    one = EngineClient(EngineConfig(model="x"), worker_module="no_such_module_here")
    with pytest.raises(EngineStartError, match="exit code 1"):
        await one.start()


async def test_an_engine_that_takes_too_long_is_given_up() -> None:
    one = process_client()
    before = children()
    with pytest.raises(EngineStartError, match="not ready after"):
        await one.start(timeout=0.0)
    assert children() == before


def children() -> int:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return len(file.read().split())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def kill(client: EngineClient) -> None:
    assert client.engine_pid is not None
    os.kill(client.engine_pid, signal.SIGKILL)


async def test_calls_in_flight_fail_at_once_when_the_engine_dies() -> None:
    async with process_client() as client:
        assert isinstance(client, EngineClient)
        states: list[State] = []
        client.on_state(states.append)
        calls = [asyncio.create_task(answer(client, generate(f"r{i}", PROMPT, max_new_tokens=400))) for i in range(4)]
        await until(lambda: client.stats.generated_tokens > 0)
        kill(client)
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert states == ["restarting"], "they are told before there is another engine"
        for error in errors:
            assert isinstance(error, EngineError) and error.kind is FailureKind.UNAVAILABLE
            assert error.retry_after > 0
        request = generate("after", PROMPT)
        assert await answer(client, request) == solo(request).tokens, "a new call waits for the new engine"
        assert states == ["restarting", "ready"]
        assert client.restarts == 1


async def test_a_call_waits_for_a_restart_no_longer_than_its_deadline() -> None:
    async with process_client() as client:
        assert isinstance(client, EngineClient)
        client._set_state("restarting")
        with pytest.raises(EngineError) as late:
            await answer(client, generate("a", PROMPT, deadline=time.monotonic() + 0.02))
        assert late.value.kind is FailureKind.DEADLINE


async def until_ready(client: BaseEngineClient, name: str) -> None:
    await until(lambda: (info := client.adapters.find(name)) is not None and info.state is AdapterState.READY)


async def test_a_load_goes_on_without_its_caller_and_is_repeated_after_a_crash(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with process_client() as client:
        caller = asyncio.create_task(client.load_adapter("a", f"one:{gate}"))
        await until(lambda: bool(client._tasks))
        caller.cancel()
        gate.touch()
        await until_ready(client, "a")
        kill(client)
        await until(lambda: client.restarts == 1)
        await until_ready(client, "a")


async def test_only_calls_that_name_an_adapter_wait_until_it_is_loaded_again(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    async with process_client() as client:
        await client.load_adapter("a", f"one:{gate}")
        gate.unlink()
        kill(client)
        await until(lambda: client.state == "restarting")
        adapted = asyncio.create_task(answer(client, generate("adapted", PROMPT, adapter="a")))
        request = generate("base", PROMPT)
        assert await answer(client, request) == solo(request).tokens
        assert not adapted.done()
        gate.touch()
        assert await adapted


async def test_loads_and_unloads_of_a_name_wait_until_it_is_loaded_again(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    async with process_client() as client:
        for name in "bcdea":  # more than are loaded again at once
            await client.load_adapter(name, f"one:{gate}")
        gate.unlink()
        kill(client)
        await until(lambda: client.restarts == 1)
        broken = asyncio.create_task(client.load_adapter("a", "broken"))
        unloaded = asyncio.create_task(client.unload_adapter("b"))
        await answer(client, generate("base", PROMPT))
        assert not broken.done() and not unloaded.done(), "the new engine has neither"
        gate.touch()
        await unloaded
        assert client.adapters.find("b") is None
        with pytest.raises(EngineError, match="noise"):
            await broken
        assert await answer(client, generate("adapted", PROMPT, adapter="a")), "what was there before serves on"


async def test_a_running_engine_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with process_client() as client:
        assert list(tmp_path.iterdir()) == []
        request = generate("a", PROMPT)
        assert await answer(client, request) == solo(request).tokens


async def test_deaths_leak_nothing() -> None:
    """What is the same after the second death and the sixth is the same after any: counts are exact."""
    async with process_client() as client:
        assert isinstance(client, EngineClient)
        sizes = set[tuple[int, int]]()
        for death in range(6):
            task = asyncio.create_task(answer(client, generate(f"r{death}", PROMPT, max_new_tokens=400)))
            await answer(client, generate(f"short{death}", PROMPT, max_new_tokens=1))
            sizes.add((descriptors(), children()))
            kill(client)
            with pytest.raises(EngineError):
                await task
        await answer(client, generate("last", PROMPT, max_new_tokens=1))
        assert client.restarts == 6
        assert len(sizes) == 1, sizes


async def test_the_engine_ends_when_its_parent_is_killed() -> None:
    program = (
        "import asyncio, sys\n"
        "from tests.frontend.test_engine_client import process_client\n"
        "async def main():\n"
        "    client = process_client()\n"
        "    await client.start()\n"
        "    print(client.engine_pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert parent.stdout is not None
    engine = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    await until(lambda: not _is_running(engine))


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_calls_of_one_caller_that_wait_for_the_engine_keep_no_other_out() -> None:
    config = EngineConfig(model="slow", max_waiting=3)
    async with EngineClient(config, worker_module="tests.support.oracle_worker") as client:
        client._set_state("restarting")
        crowd = [
            asyncio.create_task(answer(client, generate(f"crowd{i}", [*PROMPT, i], client="crowd", max_new_tokens=2)))
            for i in range(5)
        ]
        _, waiting = await asyncio.wait(crowd[3:])
        assert not waiting and not any(one.done() for one in crowd[:3])
        for refused in crowd[3:]:
            error = refused.exception()
            assert isinstance(error, EngineError) and error.kind is FailureKind.OVERLOADED
        few = asyncio.create_task(answer(client, generate("few", PROMPT, client="few", max_new_tokens=2)))
        await asyncio.sleep(0)
        assert not few.done(), "it waits like those before it"
        client._set_state("ready")
        await asyncio.gather(few, *crowd[:3])
