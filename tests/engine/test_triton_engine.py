"""The whole engine on the Triton kernels, in the interpreter: the same answers as on the other backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core import EngineCore
from ift_serve.engine.messages import AdapterReply, GenerateRequest, SamplingParams
from ift_serve.engine.runner import ModelRunner
from ift_serve.modeling.adapter.base import BaseFacts
from ift_serve.modeling.instruction.config import ComponentsConfig
from tests.support.adapters import MemoryHost, random_weights
from tests.support.engine_driver import Driver
from tests.support.models import tiny_llama

pytest.importorskip("triton", reason="Triton is there on Linux only")
BIASED = ComponentsConfig(instruction_encoder=16, attention_bias=True)


def _answers(path: Path, backend: str, *, adapters: bool, temperature: float = 0.0) -> list[list[int]]:
    config = EngineConfig(
        model=str(path), dtype="float32", total_blocks=24, max_batch_tokens=24, max_sequences=4,
        attention_backend=backend, prefix_caching=False,
    )  # fmt: skip
    runner = ModelRunner(config)
    facts = BaseFacts.of_directory(path)
    weights = {
        f"a{number}": random_weights(facts, BIASED, seed=number, rank=number * 3, targets=("q_proj", "down_proj"))
        for number in range(1, 4)
    }
    driver = Driver(EngineCore(runner, config, STRATEGIES, adapter_host=MemoryHost(runner.adapters, weights)))
    for name in weights:
        assert isinstance(driver.load(name, name), AdapterReply)
    for number in range(1, 4):
        prompt = [(7 * number + i) % 290 + 6 for i in range(9 * number)]
        segments = bytes([0, 1, 1, 1, 2, 2, 1, 0, 0] * number)
        driver.add(
            GenerateRequest(
                request_id=str(number), token_ids=prompt, segment_ids=segments,
                adapter=f"a{number}" if adapters else "",
                sampling=SamplingParams(temperature=temperature, top_p=0.9, seed=5, max_new_tokens=5, ignore_eos=True),
            )
        )  # fmt: skip
    answers = driver.run()
    return [answers[str(number)].tokens[0] for number in range(1, 4)]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_three_adapters_with_biases_answer_as_on_the_reference(tmp_path: Path, temperature: float) -> None:
    path = tiny_llama(tmp_path)
    triton = _answers(path, "triton", adapters=True, temperature=temperature)
    assert triton == _answers(path, "reference", adapters=True, temperature=temperature)
    assert triton == _answers(path, "cpu", adapters=True, temperature=temperature)
    assert triton != _answers(path, "cpu", adapters=False, temperature=temperature), "the adapters change nothing"
