"""An engine in a process of its own."""

from __future__ import annotations

from ift_serve.engine.config import EngineConfig
from ift_serve.frontend.engine_client import EngineClient

WORKER_MODULE = "ift_serve.engine.worker"
"""What ``python -m`` runs as an engine process."""


def engine_process(config: EngineConfig) -> EngineClient:
    """A client of an engine process that it starts, watches and restarts."""
    return EngineClient(config, WORKER_MODULE)
