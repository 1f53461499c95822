"""What a start tells: stages that take long while they run, all of them at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from ift_serve.system import start_stages
from ift_serve.system.start_stages import StartStages, process_age


class Kept(logging.Handler):
    """Records, and an event that is set when one comes."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.came = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        self.records.append(record)
        self.came.set()

    @property
    def messages(self) -> list[str]:
        """What was told."""
        return [record.getMessage() for record in self.records]


@pytest.fixture
def told() -> Iterator[Kept]:
    kept, logger = Kept(), logging.getLogger(start_stages.__name__)
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(kept)
    logger.setLevel(level)


def test_a_stage_that_takes_long_is_told_while_it_runs(told: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_stages, "TOLD_AFTER", 0.01)
    with StartStages("before") as stages:
        stages.begin("compiling kernels")
        assert told.came.wait(10), "nothing is told of a stage that does not end"
        assert told.messages == ["starting: compiling kernels"]
    assert told.messages[1:] == ["started"]


def test_short_stages_are_told_at_the_end_only_with_their_times(told: Kept) -> None:
    with StartStages("before") as stages:
        for name in ("a", "b", "a"):
            stages.begin(name)
    assert told.messages == ["started"]
    seconds = vars(told.records[0])["seconds"]
    assert list(seconds) == ["before", "a", "b"] and all(taken >= 0 for taken in seconds.values())


def test_a_start_that_fails_says_nothing_of_having_started(told: Kept) -> None:
    def load() -> None:
        with StartStages("before") as stages:
            stages.begin("loading")
            raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        load()
    assert told.messages == []
    assert not any(isinstance(thread, threading.Timer) and thread.is_alive() and not thread.finished.is_set()
                   for thread in threading.enumerate())  # fmt: skip


def test_the_age_of_a_process_is_its_time_since_it_began() -> None:
    first = process_age()
    begun = time.monotonic()
    while time.monotonic() - begun < 0.05:
        pass
    assert first > 0 and 0.03 <= process_age() - first < 60
