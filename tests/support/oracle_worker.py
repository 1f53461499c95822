"""``python -m tests.support.oracle_worker ENDPOINT PARENT_PID``: an engine process around the oracle.

The configuration's ``model`` says how it behaves: ``broken`` cannot load, ``slow`` takes 10 ms a step,
``hung`` never ends its third, ``deadlocked`` waits in it for a lock that nobody gives back, ``spinning`` schedules
nothing from it on, ``layered`` takes seconds for it but gets on, ``compiling`` has numba compile for seconds in it,
``stuck`` stops while it loads. A model's directory is named in the description, so that a server reads its tokenizer;
its weights are not read, and torch is not imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import msgspec

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.message_loop import worker_main
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.engine.protocol.wire import StepOutputs
from ift_serve.engine.runner.compile_monitor import report_compilations
from ift_serve.engine.sequences.step import StepBatch, StepResult
from tests.support.oracle_host import OracleHost
from tests.support.paged_oracle import PagedOracle


class SlowOracle(PagedOracle):
    """Takes its time, so that a test can act in the middle of an answer."""

    def execute(self, batch: StepBatch) -> StepResult:
        time.sleep(0.01)
        return super().execute(batch)


class HungOracle(PagedOracle):
    """Stops for good in its third step."""

    def execute(self, batch: StepBatch) -> StepResult:
        while len(self.batches) == 2:
            time.sleep(1)
        return super().execute(batch)


class DeadlockedOracle(PagedOracle):
    """Waits for ever in its third step."""

    def execute(self, batch: StepBatch) -> StepResult:
        if len(self.batches) == 2:
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
        return super().execute(batch)


class LayeredOracle(PagedOracle):
    """Takes LAYERS_SECONDS for its third step, in small parts."""

    def execute(self, batch: StepBatch) -> StepResult:
        if len(self.batches) == 2:
            end = time.monotonic() + float(os.environ["LAYERS_SECONDS"])
            while time.monotonic() < end:
                time.sleep(0.02)
                self.progress.work()
        return super().execute(batch)


class CompilingOracle(PagedOracle):
    """Has numba compile for at least COMPILE_SECONDS in its third step."""

    def __init__(self, total_blocks: int) -> None:
        super().__init__(total_blocks)
        report_compilations(lambda: self.progress)

    def execute(self, batch: StepBatch) -> StepResult:
        if len(self.batches) == 2:
            compile_for(float(os.environ["COMPILE_SECONDS"]))
        return super().execute(batch)


def compile_for(seconds: float) -> None:
    """One compilation: a pass over a function whose typing takes that long."""
    from numba import njit
    from numba.extending import overload

    def slow() -> int:
        return 1

    @overload(slow)  # type: ignore[untyped-decorator]
    def typed() -> Callable[[], int]:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return lambda: 1

    assert njit(lambda: slow())() == 1


class SpinningCore(EngineCore):
    """Finds work and does none of it from its third step on."""

    def step(self) -> StepOutputs:
        if self.stats().steps < 2:
            return super().step()
        return StepOutputs(outputs=[], stats=self.stats())


RUNNERS: dict[str, type[PagedOracle]] = {
    "slow": SlowOracle,
    "hung": HungOracle,
    "deadlocked": DeadlockedOracle,
    "layered": LayeredOracle,
    "compiling": CompilingOracle,
}


def build(config: EngineConfig) -> tuple[EngineCore, ModelDescription]:
    """An engine of 512 blocks that needs no files."""
    if config.model == "broken":
        raise FileNotFoundError("model: there is nothing here")
    if config.model == "stuck" and not os.path.exists(once := os.environ["STUCK_ONCE"]):
        open(once, "x").close()
        os.kill(os.getpid(), signal.SIGSTOP)
    kind = SpinningCore if config.model == "spinning" else EngineCore
    runner = RUNNERS.get(config.model, PagedOracle)(config.total_blocks or 512)
    description = runner.description
    if os.path.isdir(config.model):
        description = msgspec.structs.replace(description, path=config.model)
    return kind(runner, config, STRATEGIES, adapter_tensors=OracleHost(config.adapter_slots)), description


if __name__ == "__main__":
    sys.exit(worker_main(build, sys.argv[1:]))
