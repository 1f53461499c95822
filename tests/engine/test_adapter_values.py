"""Adapters whose values are at the edge: overflow, narrow dtypes, prompts without segments."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ift_serve.decoding.build import build_core
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.messages import AdapterReply, FailureKind, RequestFailed, ScoreRequest
from ift_serve.engine.runner import ModelRunner
from ift_serve.modeling.adapters.base import BaseFacts
from ift_serve.modeling.adapters.weights import AdapterWeights
from ift_serve.modeling.instruction.config import ComponentsConfig
from tests.support.adapters import EVERYTHING, MemoryHost, random_weights
from tests.support.engine_driver import Driver, generate
from tests.support.models import tiny_llama

PROMPT = [1, 10, 11, 12]


def driver_of(model: Path, dtype: str, **weights: AdapterWeights) -> Driver:
    core, _ = build_core(EngineConfig(model=str(model), dtype=dtype, total_blocks=64, threads=1))
    runner = core._runner
    assert isinstance(runner, ModelRunner)
    core._adapters._loader._read = MemoryHost(runner.adapters, weights).read
    return Driver(core)


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def facts(model_directory: Path) -> BaseFacts:
    return BaseFacts.of_directory(model_directory)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_adapter_that_overflows_fails_alone(model_directory: Path, facts: BaseFacts, temperature: float) -> None:
    huge = random_weights(facts, seed=1, targets=("q_proj", "down_proj"))
    for module in huge.lora.values():
        module.a.mul_(1e25)
        module.b.mul_(1e25)
    driver = driver_of(model_directory, "float32", huge=huge)
    driver.add(generate("alone", PROMPT, max_new_tokens=12))
    alone = driver.run()["alone"].tokens
    assert isinstance(driver.load("huge", "huge"), AdapterReply)
    for turn in range(4):
        driver.add(
            generate(f"bad {turn}", [1, 20, 21], adapter="huge", temperature=temperature),
            ScoreRequest(request_id=f"score {turn}", token_ids=[1, 20], continuations=[[5]], adapter="huge"),
            generate(f"good {turn}", PROMPT, max_new_tokens=12),
        )
        answers = driver.run()
        assert answers[f"good {turn}"].tokens == alone
        for name in ("bad", "score"):
            failure = answers[f"{name} {turn}"].failure
            assert failure is not None and failure.kind is FailureKind.INTERNAL and "not finite" in failure.message


def test_values_too_large_for_the_models_dtype_are_refused(model_directory: Path, facts: BaseFacts) -> None:
    large = random_weights(facts, seed=1, targets=("q_proj",))
    next(iter(large.lora.values())).b[0, 0] = 3.4e38
    refused = driver_of(model_directory, "bfloat16", large=large).load("large", "large")
    assert isinstance(refused, RequestFailed) and "too large for bfloat16" in refused.message


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bytes_are_of_what_is_held(model_directory: Path, facts: BaseFacts, dtype: str) -> None:
    weights = random_weights(facts, EVERYTHING, seed=1, targets=("q_proj",))
    driver = driver_of(model_directory, dtype, one=weights)
    assert isinstance(driver.load("one", "one"), AdapterReply)
    size = 4 if dtype == "float32" else 2
    floats = sum(m.a.numel() + m.b.numel() for m in weights.lora.values()) + sum(
        t.numel() for t in weights.extras.values()
    )
    heads = next(t.numel() for name, t in weights.extras.items() if "attention_bias" in name and t.ndim == 2)
    assert driver.core.load().adapter_bytes == size * floats + 4 * heads


def test_generated_tokens_are_response_whatever_the_prompt_says(model_directory: Path, facts: BaseFacts) -> None:
    weights = random_weights(facts, ComponentsConfig(segment_embedding=True), seed=1)
    table = weights.extras["segment_embedding.weight"]
    table[:3] = 0
    table[3] = torch.randn(table.shape[1], generator=torch.Generator().manual_seed(1))
    driver = driver_of(model_directory, "float32", one=weights)
    assert isinstance(driver.load("one", "one"), AdapterReply)
    driver.add(
        generate("base", PROMPT),
        generate("raw", PROMPT, adapter="one"),
        generate("marked", PROMPT, adapter="one", segment_ids=b"\2\0\0\0"),
    )
    answers = driver.run()
    assert answers["raw"].tokens == answers["marked"].tokens != answers["base"].tokens
