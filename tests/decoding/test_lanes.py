"""Lanes of work: order within one, turns among several."""

from __future__ import annotations

import threading

import pytest

from ift_serve.decoding.lanes import Lanes


def test_tasks_of_a_lane_run_in_order_one_at_a_time() -> None:
    lanes = Lanes(4, "test")
    done: list[tuple[int, int]] = []
    running: dict[int, int] = {}

    def work(lane: int, place: int) -> int:
        assert running.get(lane, 0) == 0, "two tasks of one lane at once"
        running[lane] = 1
        done.append((lane, place))
        running[lane] = 0
        return place

    opened = [lanes.open() for _ in range(5)]
    futures = [[opened[lane].submit(work, lane, place) for lane in range(5)] for place in range(200)]
    assert [[future.result(20) for future in row] for row in futures] == [[place] * 5 for place in range(200)]
    for lane in range(5):
        assert [place for which, place in done if which == lane] == list(range(200))


def test_a_lane_with_much_to_do_delays_another_by_one_task() -> None:
    lanes = Lanes(1, "test")
    go, order = threading.Event(), list[str]()
    slow, other = lanes.open(), lanes.open()
    slow.submit(go.wait)
    tasks = [slow.submit(order.append, f"slow {place}") for place in range(5)]
    tasks += [other.submit(order.append, "other")]
    go.set()
    for task in tasks:
        task.result(20)
    assert order.index("other") <= 1


def test_what_a_task_raises_is_its_future_s_and_the_lane_goes_on() -> None:
    lane = Lanes(1, "test").open()

    def fail() -> None:
        raise ValueError("no")

    failed, after = lane.submit(fail), lane.submit(lambda: 7)
    with pytest.raises(ValueError, match="no"):
        failed.result(20)
    assert after.result(20) == 7
    assert lane.is_idle
