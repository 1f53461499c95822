"""``python -m tests.support.oracle_worker ENDPOINT PARENT_PID``: an engine process around the oracle.

The configuration's ``model`` says how it behaves: ``broken`` cannot load, ``slow`` takes 10 ms a step,
``hung`` never ends its third.
"""

from __future__ import annotations

import sys
import time

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core import EngineCore
from ift_serve.engine.messages import ModelDescription
from ift_serve.engine.process import worker_main
from ift_serve.engine.step import StepBatch, StepResult
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


RUNNERS: dict[str, type[PagedOracle]] = {"slow": SlowOracle, "hung": HungOracle}


def build(config: EngineConfig) -> tuple[EngineCore, ModelDescription]:
    """An engine of 512 blocks that needs no files."""
    if config.model == "broken":
        raise FileNotFoundError("model: there is nothing here")
    runner = RUNNERS.get(config.model, PagedOracle)(config.total_blocks or 512)
    return EngineCore(runner, config, STRATEGIES, adapter_host=OracleHost(config.adapter_slots)), runner.description


if __name__ == "__main__":
    sys.exit(worker_main(build, sys.argv[1:]))
