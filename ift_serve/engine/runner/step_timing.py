"""What the runner's steps take by their rows, measured before it serves: a planner of drafts begins with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.sequences.step import SamplingRow, SequenceStep, StepBatch, StepResult

_TRIES = 3
_DRAWN = SamplingParams(max_new_tokens=1)


class Runner(Protocol):
    """Computes a step. It serves nobody yet: what its first blocks hold is written over."""

    block_size: int
    total_blocks: int

    def execute(self, batch: StepBatch) -> StepResult:
        """See :class:`ift_serve.engine.runner.model_runner.ModelRunner`."""


def step_seconds(runner: Runner, rows: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Seconds of a step of one sequence with 1, 2 ... ``rows`` rows, a draw in each; fewer where blocks are few.

    A first step of each size, which may compile or record something, does not count; of the next ones the shortest
    does, as others on the machine only add to it.
    """
    found = list[float]()
    for count in range(1, min(rows, runner.total_blocks * runner.block_size) + 1):
        batch = _batch(count, runner.block_size)
        runner.execute(batch)
        tries = list[float]()
        for _ in range(_TRIES):
            begun = clock()
            runner.execute(batch)
            tries.append(clock() - begun)
        found.append(min(tries))
    return found


def _batch(count: int, block_size: int) -> StepBatch:
    row = SamplingRow(_DRAWN, 0, 0, _DRAWN.temperature, [0], 1)
    blocks = list(range(-(-count // block_size)))
    return StepBatch([SequenceStep(-1, [0] * count, 0, blocks, b"", row, drafts=(row,) * (count - 1))], [])
