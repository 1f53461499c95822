"""What is fuzzed: for each target what runs an input, and right inputs to begin with. Imported only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple


class Target(NamedTuple):
    """Names in a module of ``tests.fuzz``: ``run`` makes the function that raises where an input shows a fault."""

    module: str
    run: str
    seeds: str

    def load(self) -> Callable[[bytes], None]:
        """What runs one input."""
        made: Callable[[bytes], None] = getattr(importlib.import_module(f"tests.fuzz.{self.module}"), self.run)()
        return made

    def make_seeds(self) -> dict[str, bytes]:
        """Inputs by name."""
        made: dict[str, bytes] = getattr(importlib.import_module(f"tests.fuzz.{self.module}"), self.seeds)()
        return made


TARGETS = {
    "prompt": Target("requests", "prompt", "prompt_seeds"),
    "request": Target("requests", "request", "request_seeds"),
    "adapter_directory": Target("adapters", "adapter_directory", "adapter_seeds"),
    "tensor_file": Target("adapters", "tensor_file", "tensor_seeds"),
    "signature": Target("adapters", "signature", "signature_seeds"),
    "model_directory": Target("model_files", "model_directory", "model_seeds"),
    "gguf": Target("model_files", "gguf", "gguf_seeds"),
}
