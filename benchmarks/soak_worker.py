"""``python -m soak_worker ENDPOINT PARENT_PID``: the engine process, which also writes down what its memory is made of.

A line of JSON every ``IFT_SOAK_SECONDS`` into the file ``IFT_SOAK_MEMORY``; see ``memory.snapshot``.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from memory import mib, record

from ift_serve.engine.build import build_core
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.message_loop import worker_main
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.system.logs import configure_logs


def _record(core: EngineCore) -> None:
    def load() -> dict[str, float]:
        stats = core.stats()
        return {"steps": stats.steps, "adapter_mib": mib(stats.adapter_bytes)}

    record(Path(os.environ["IFT_SOAK_MEMORY"]), float(os.environ["IFT_SOAK_SECONDS"]), load)


def _build(config: EngineConfig) -> tuple[EngineCore, ModelDescription]:
    core, model = build_core(config)
    threading.Thread(target=_record, args=(core,), name="memory", daemon=True).start()
    return core, model


if __name__ == "__main__":
    configure_logs("warning")
    code = worker_main(_build, sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
