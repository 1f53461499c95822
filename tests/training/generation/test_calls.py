"""Asking in order: the window is kept full, and what a question sees never depends on how fast answers come."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ift_training.data.generation.calls import in_order
from tests.support.generated import generate, task_writer
from tests.support.scripted_server import scripted_server


async def _asked(count: int, width: int, seed: int, stop: int | None = None) -> tuple[list[int], list[int], int]:
    """What each question saw as taken, what was taken in which order, and how many were in flight at most."""
    rng = random.Random(seed)
    taken: list[int] = []
    seen: list[int] = []
    running = most = 0

    def ask(number: int) -> Callable[[], Awaitable[int]]:
        seen.append(len(taken))

        async def answered() -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                for _ in range(rng.randrange(1, 20)):
                    await asyncio.sleep(0)
            finally:
                running -= 1
            return number * number

        return answered

    def take(number: int, result: int) -> bool:
        assert result == number * number
        taken.append(number)
        return number != stop

    await in_order(range(count), ask, take, width)
    assert running == 0, "nothing is left behind"
    return seen, taken, most


@pytest.mark.parametrize("width", [1, 3, 8, 50])
async def test_a_question_sees_what_was_taken_a_window_before_it(width: int) -> None:
    for seed in range(5):
        seen, taken, most = await _asked(30, width, seed)
        assert seen == [max(0, number - width + 1) for number in range(30)]
        assert taken == list(range(30)) and most == min(width, 30)


async def test_it_ends_when_there_is_enough() -> None:
    seen, taken, _ = await _asked(30, 4, 0, stop=10)
    assert taken == list(range(11)) and len(seen) == 14


async def test_a_failure_ends_the_others() -> None:
    started = ended = 0

    def ask(number: int) -> Callable[[], Awaitable[int]]:
        async def answered() -> int:
            nonlocal started, ended
            if number == 2:
                raise ValueError("wrong")
            started += 1
            try:
                await asyncio.sleep(60)
            finally:
                ended += 1
            return 0

        return answered if number else _nothing

    with pytest.raises(ValueError, match="wrong"):
        await in_order([0, 2, 1, 1], ask, lambda number, result: True, 3)
    assert ended == started > 0


async def _nothing() -> int:
    return 0


@pytest.mark.parametrize("width", [1, 7])
def test_the_servers_queue_is_kept_full(seeds: Path, tmp_path: Path, width: int) -> None:
    with scripted_server(task_writer, 0.01) as server:
        generate(server.address, seeds=str(seeds), store=str(tmp_path / "r.sqlite"), tries=20, in_flight=width, seed=0)
    assert width <= server.most <= 5 * width, "an instruction's instances are verified side by side"
