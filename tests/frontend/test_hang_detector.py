"""An engine that is stuck is replaced, and one that is slow is left alone. Real processes, with little patience."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.engine.protocol.adapter import AdapterState
from ift_serve.engine.protocol.progress import Progress, ProgressView, open_page
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.frontend.engine_client import EngineClient, EngineError, State
from ift_serve.frontend.hang_detector import HangDetector
from tests.frontend.test_engine_client import PROMPT, answer, children, process_client, until
from tests.support.engine_driver import generate, solo

PATIENCE = 1.0


def pid_of(client: EngineClient) -> int:
    assert client.engine_pid is not None
    return client.engine_pid


async def killed_and_replaced(client: EngineClient, request_id: str = "stuck") -> None:
    """The call in flight is told to come back, the process is gone, and the next engine answers."""
    before, processes = pid_of(client), children()
    with pytest.raises(EngineError) as ended:
        await answer(client, generate(request_id, PROMPT, max_new_tokens=400))
    assert ended.value.kind is FailureKind.UNAVAILABLE and ended.value.retry_after > 0
    request = generate("next", PROMPT, max_new_tokens=2)
    assert await answer(client, request) == solo(request).tokens
    assert (client.hangs, client.restarts) == (1, 1)
    assert not os.path.exists(f"/proc/{before}") and children() == processes


@pytest.mark.parametrize("model", ["hung", "deadlocked", "spinning"])
async def test_an_engine_that_stops_getting_on_is_replaced(model: str) -> None:
    async with process_client(model, PATIENCE) as client:
        await killed_and_replaced(client)


async def test_a_stopped_process_is_replaced() -> None:
    async with process_client("slow", PATIENCE) as client:
        stuck = asyncio.create_task(killed_and_replaced(client))
        await until(lambda: client.stats.generated_tokens > 0)
        os.kill(pid_of(client), signal.SIGSTOP)
        await stuck


async def test_a_process_that_is_stopped_while_idle_is_replaced_before_anybody_calls() -> None:
    async with process_client("slow", PATIENCE) as client:
        states: list[State] = []
        client.on_state(states.append)
        os.kill(pid_of(client), signal.SIGSTOP)
        await until(lambda: client.state == "ready" and client.restarts == 1)
        assert states == ["restarting", "ready"] and client.hangs == 1


async def test_a_process_that_is_stopped_while_it_loads_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = tmp_path / "once"
    once.touch()
    monkeypatch.setenv("STUCK_ONCE", str(once))
    async with process_client("stuck", PATIENCE) as client:
        once.unlink()
        os.kill(pid_of(client), signal.SIGKILL)
        await until(lambda: client.state == "restarting")
        request = generate("after", PROMPT)
        assert await answer(client, request) == solo(request).tokens
        assert once.exists(), "the first engine that should replace the killed one stopped while it loaded"


async def test_a_step_that_takes_longer_but_gets_on_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERS_SECONDS", str(2 * PATIENCE))
    async with process_client("layered", PATIENCE) as client:
        request = generate("a", PROMPT)
        assert await answer(client, request) == solo(request).tokens
        assert client.restarts == 0


async def test_a_compilation_that_takes_longer_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPILE_SECONDS", str(2 * PATIENCE))
    async with process_client("compiling", PATIENCE) as client:
        request = generate("a", PROMPT)
        assert await answer(client, request) == solo(request).tokens
        assert client.restarts == 0


async def test_an_idle_engine_and_one_that_reads_an_adapter_are_left_alone(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with process_client("slow", PATIENCE) as client:
        loading = asyncio.create_task(client.load_adapter("a", f"one:{gate}"))
        await asyncio.sleep(2 * PATIENCE)
        gate.touch()
        assert (await loading).state is AdapterState.READY and client.restarts == 0
        await asyncio.sleep(2 * PATIENCE)
        assert client.restarts == 0


async def test_an_engine_that_reads_an_evicted_adapter_while_requests_wait_for_it_is_left_alone(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    async with process_client("slow", PATIENCE, max_adapters=1) as client:
        await client.load_adapter("a", f"one:{gate}")
        await client.load_adapter("b", "two")
        gate.unlink()
        waiting = asyncio.create_task(answer(client, generate("r", PROMPT, adapter="a")))
        await asyncio.sleep(2 * PATIENCE)
        assert client.restarts == 0 and not waiting.done()
        gate.touch()
        assert await waiting and client.restarts == 0


class Bench:
    """A detector whose time and usage a test moves."""

    def __init__(self, patience: float = 10.0) -> None:
        handle = open_page()
        self.progress = Progress(handle)
        self.now, self.used = 100.0, 0
        self.view = ProgressView(handle)
        self.detector = HangDetector(self.view, 0, patience, lambda: self.now, lambda _: (self.used,))

    def wait(self, seconds: float, *, starting: bool = False, has_work: bool = True) -> bool:
        """Whether any look within that time finds the engine hung."""
        found = False
        end = self.now + seconds
        while self.now < end:
            self.now += self.detector.interval
            found |= self.detector.look(starting=starting, has_work=has_work)
        return found


def test_what_counts_as_progress_depends_on_what_is_owed() -> None:
    bench = Bench()
    for _ in range(30):
        bench.progress.idle()
        assert not bench.wait(2.0, has_work=False)
    assert not bench.wait(9.0, has_work=False)
    for _ in range(3):
        bench.progress.work()
        assert not bench.wait(9.0)
    for _ in range(5):
        bench.progress.idle()
        bench.used += 1
        hung = bench.wait(3.0)
    assert hung, "an idle loop and computing time are no answer"


def test_a_compilation_may_compute_for_ten_minutes_and_not_for_ever() -> None:
    bench = Bench()
    bench.progress.compilation_begins()
    for _ in range(98):
        bench.used += 1
        assert not bench.wait(6.0)
    hung = []
    for _ in range(6):
        bench.used += 1
        hung.append(bench.wait(6.0))
    assert any(hung)
    stopped = Bench()
    stopped.progress.compilation_begins()
    assert stopped.wait(12.0), "a compilation that uses nothing is stuck"


def test_computing_counts_while_the_engine_starts() -> None:
    bench = Bench()
    for _ in range(100):
        bench.used += 1
        assert not bench.wait(9.0, starting=True)
    assert bench.wait(12.0, starting=True)


def test_time_that_the_front_slept_through_does_not_count() -> None:
    bench = Bench()
    assert not bench.wait(3.0)
    bench.now += 3600
    assert not bench.detector.look(starting=False, has_work=True)
    bench.progress.work()
    assert not bench.wait(9.0)


@given(parts=st.lists(st.integers(0, 20), max_size=30))
def test_any_pace_of_progress_within_patience_is_left_alone(parts: list[int]) -> None:
    bench = Bench()
    for part in parts:
        bench.progress.work()
        assert not bench.wait(part * 0.5 - 0.5 if part else 0)
    assert bench.wait(12.0)
