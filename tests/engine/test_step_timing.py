"""Steps that are timed before serving, on a real engine's runner."""

from __future__ import annotations

from itertools import count

from ift_serve.embedded import model_path
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.engine.runner.step_timing import step_seconds


def test_a_step_of_each_number_of_rows_is_timed_and_recorded_before_anything_is_served() -> None:
    runner = ModelRunner(EngineConfig(model=str(model_path()), total_blocks=8))
    ticks = count()
    found = step_seconds(runner, 6, clock=lambda: float(next(ticks)))
    assert found == [1.0] * 6
    assert set(runner.recorded_sizes) >= set(range(1, 7)) or not runner.recorded_sizes


def test_rows_that_no_block_is_there_for_are_not_timed() -> None:
    runner = ModelRunner(EngineConfig(model=str(model_path()), total_blocks=2, block_size=4))
    assert len(step_seconds(runner, 16)) == 8
