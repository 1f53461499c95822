"""Compiles, as for sm_90, what an engine's warm-up and then its traffic need; prints what only the traffic did."""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

import ift_serve.engine.runner.model_runner
from ift_kernels.aot.compile_only import compile_only
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.engine.runner.serving_check import ServingCheck
from ift_serve.engine.sequences.step import AdaptedPrompt, SamplingRow, SequenceStep, StepBatch
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.components.config import ComponentsConfig
from ift_serve.modeling.decoder.decoder import Decoder
from ift_serve.modeling.decoder.model_loader import LoadedModel
from tests.support.adapters import random_weights

SAMPLING = [
    SamplingParams(),
    SamplingParams(top_p=0.9),
    SamplingParams(repetition_penalty=1.1),
    SamplingParams(logit_bias={3: 1.0}, top_k=4),
    SamplingParams(temperature=0.0),
    SamplingParams(top_h=0.4, processed_log_probs=True),
    SamplingParams(processed_log_probs=True, repetition_penalty=1.1),
]
SHAPES = [[1], [17], [1, 1, 1], [1, 300], [512]]


class UncomparedCheck(ServingCheck):
    """Runs what the check runs; kernels that are only compiled give no numbers to compare."""

    def _compare_miniature(self, own: Any, config: Any, prompts: list[list[int]], expected: list[Tensor]) -> None:
        self._first_difference(config, prompts, expected)

    def compare(self, decoder: Decoder, part: LoadedModel | None = None, backend: str | None = None) -> None:
        """Nothing."""


def step(number: int, count: int, params: SamplingParams, adapter: int) -> SequenceStep:
    """``count`` tokens of a sequence that has five in the cache."""
    history = [7] * (5 + count)
    prompt = AdaptedPrompt(number, history, bytes([1]) * len(history)) if adapter else None
    row = SamplingRow(params, 1, 5, 0.9, history, len(history))
    table = list(range(number * 40, number * 40 + 40))
    return SequenceStep(number, [7] * count, 5, table, bytes([1]) * count, row, adapter=adapter, prompt=prompt)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    vars(ift_serve.engine.runner.model_runner)["ServingCheck"] = UncomparedCheck
    with compile_only(90) as compiled:
        runner = ModelRunner(
            EngineConfig(
                model=str(path),
                dtype="bfloat16",
                attention_backend="triton",
                total_blocks=300,
                max_sequences=8,
                max_batch_tokens=512,
            )
        )
        warm = len(compiled)
        components = ComponentsConfig(instruction_encoder=16, attention_bias=True)
        weights = random_weights(
            BaseMetadata.of_directory(path), components, seed=1, targets=("q_proj", "v_proj", "down_proj")
        )
        host = runner.adapters
        host.keep("a", host.take(weights).tensors)
        host.place("a", 1)
        for adapter, params, shape in product((0, 1), SAMPLING, SHAPES):
            runner.execute(StepBatch([step(i, count, params, adapter) for i, count in enumerate(shape)], []))
    print(json.dumps({"warm_up": warm, "late": [c.name for c in compiled[warm:]]}))
