"""Steps that are timed before serving, on a real engine's runner."""

from __future__ import annotations

from itertools import count

import pytest

from ift_serve.embedded import model_path
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.engine.runner.step_timing import step_seconds


@pytest.fixture(scope="module")
def runner() -> ModelRunner:
    return ModelRunner(EngineConfig(model=str(model_path()), total_blocks=2, block_size=16))


def test_a_step_of_each_number_of_rows_is_timed(runner: ModelRunner) -> None:
    ticks = count()
    assert step_seconds(runner, 6, clock=lambda: float(next(ticks))) == [1.0] * 6
    assert next(ticks) == 6 * 3 * 2, "the first step of a size is none of those that count"


def test_rows_that_no_block_is_there_for_are_not_timed(runner: ModelRunner) -> None:
    assert len(step_seconds(runner, 40)) == 32
