"""Loads run side by side, count in the order asked, and a stuck one is given up."""

from __future__ import annotations

import threading
import time

from ift_serve.engine.adapters.loader import Loaded, Loader


def finished(loader: Loader, count: int) -> list[Loaded]:
    found: list[Loaded] = []
    end = time.monotonic() + 60
    while len(found) < count and time.monotonic() < end:
        found += loader.finished()
        time.sleep(0.005)
    return found


def test_loads_run_side_by_side() -> None:
    together = threading.Barrier(4)

    def read() -> None:
        together.wait(20)

    loader = Loader(read, patience=60.0)
    for key in range(8):
        loader.start(key)
    assert sorted(load.key for load in finished(loader, 8) if load.error is None) == list(range(8))


def test_a_load_that_stands_still_is_given_up_and_the_others_go_on() -> None:
    never = threading.Event()

    def read(stuck: bool) -> str:
        if stuck:
            never.wait()
        return "read"

    loader = Loader(read, patience=1.0)
    for key in range(6):
        loader.start(key, key < 5)
    done = {load.key: load for load in finished(loader, 6)}
    assert all(isinstance(done[key].error, TimeoutError) for key in range(5)) and done[5].result == "read"
    never.set()
    loader.start(7, False)
    assert [load.key for load in finished(loader, 1)] == [7], "what was given up says nothing any more"
