"""A model runner as it is after its start, without the comparisons and warm-up steps of that start.

In Triton's interpreter they take several times as long as what most tests ask of the runner.
"""

from __future__ import annotations

from unittest.mock import patch

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.runner import model_runner
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.engine.runner.serving_check import ServingCheck
from ift_serve.modeling.decoder.decoder import Decoder
from ift_serve.modeling.decoder.fused_layers import can_fuse
from ift_serve.modeling.decoder.model_loader import LoadedModel


class _NoCheck(ServingCheck):
    """Decides what the check decides of a model that it accepts."""

    def __init__(self, loaded: LoadedModel, backend: str, block_size: int) -> None:
        self.fuses = backend != "reference" and can_fuse(loaded)

    def compare(self, decoder: Decoder, part: LoadedModel | None = None, backend: str | None = None) -> None:
        """Nothing."""


def unchecked_runner(config: EngineConfig) -> ModelRunner:
    """For a model and a backend whose check and warm-up another test runs."""
    with patch.object(model_runner, "ServingCheck", _NoCheck), patch.object(ModelRunner, "_warm_up", lambda self: None):
        return ModelRunner(config)
