"""Adapters whose values are at the edge: overflow, narrow dtypes, prompts without segments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.adapter import AdapterReply
from ift_serve.engine.protocol.results import FailureKind, RequestFailed
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.modeling.adapter_format.apply import merged_reference
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.weights import AdapterWeights, LoraModule
from ift_serve.modeling.components.config import ComponentsConfig
from tests.support.adapters import EVERYTHING, MemoryHost, random_weights
from tests.support.engine_driver import Driver, generate
from tests.support.models import tiny_llama

PROMPT = [1, 10, 11, 12]


def config_of(model: Path, dtype: Any) -> EngineConfig:
    return EngineConfig(model=str(model), dtype=dtype, total_blocks=64, threads=1)


def driver_of(model: Path, dtype: Any, runner: ModelRunner | None = None, **weights: AdapterWeights) -> Driver:
    config = config_of(model, dtype)
    runner = runner or ModelRunner(config)
    host: Any = MemoryHost(runner.adapters, weights)
    return Driver(EngineCore(runner, config, STRATEGIES, adapter_tensors=host))


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def metadata(model_directory: Path) -> BaseMetadata:
    return BaseMetadata.of_directory(model_directory)


@pytest.fixture(scope="module")
def runners(model_directory: Path) -> dict[str, ModelRunner]:
    """By dtype. An adapter that is refused leaves nothing in them."""
    return {dtype: ModelRunner(config_of(model_directory, dtype)) for dtype in ("float32", "bfloat16")}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_adapter_whose_values_go_bad_fails_alone(
    model_directory: Path, metadata: BaseMetadata, temperature: float
) -> None:
    bad = random_weights(metadata, seed=1, targets=("q_proj", "down_proj"))
    driver = driver_of(model_directory, "float32", bad=bad)
    driver.add(generate("alone", PROMPT, max_new_tokens=12))
    alone = driver.run()["alone"].tokens
    assert isinstance(driver.load("bad", "bad"), AdapterReply)
    [prepared] = driver.core._runner.adapters._resident.values()  # type: ignore[attr-defined]
    for factors in (part for parts in prepared.linears for part in parts if part is not None):
        factors.b.fill_(3e38)
    for turn in range(4):
        driver.add(
            generate(f"bad {turn}", [1, 20, 21], adapter="bad", temperature=temperature),
            ScoreRequest(request_id=f"score {turn}", token_ids=[1, 20], continuations=[[5]], adapter="bad"),
            generate(f"good {turn}", PROMPT, max_new_tokens=12),
        )
        answers = driver.run()
        assert answers[f"good {turn}"].tokens == alone
        for name in ("bad", "score"):
            failure = answers[f"{name} {turn}"].failure
            assert failure is not None and failure.kind is FailureKind.INTERNAL and "not finite" in failure.message


_SIZES = (3e38, 1e20, 1e13)
"""The largest float32; what overflows when it is squared; what a few products lead to overflow."""


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "kind", ["A", "B", "A and B", "head LoRA", "embedding LoRA", "saved embeddings", "saved head", "tokens"]
)
def test_values_out_of_all_proportion_are_refused(
    model_directory: Path,
    metadata: BaseMetadata,
    runners: dict[str, ModelRunner],
    kind: str,
    dtype: str,
    size: float,
) -> None:
    huge = random_weights(metadata, seed=1, targets=("q_proj", "down_proj"))
    vocabulary, width = metadata.shapes[f"{metadata.embedding_path}.weight"]
    path = "model.layers.1.mlp.down_proj"
    if kind == "A":
        huge.lora[path].a[0, 0] = size
    elif kind == "B":
        huge.lora[path].b[0, 0] = size
    elif kind == "A and B":
        huge.lora[path].a.mul_(size**0.5)
        huge.lora[path].b.mul_(size**0.5)
    elif kind == "head LoRA":
        path = metadata.head_path
        huge.lora[path] = LoraModule(torch.ones(2, width), torch.full((vocabulary, 2), size), 0.5)
    elif kind == "embedding LoRA":
        path = metadata.embedding_path
        huge.lora[path] = LoraModule(torch.full((2, vocabulary), size), torch.ones(width, 2), 0.5)
    elif kind == "tokens":
        path = "token_rows"
        huge.token_rows[metadata.embedding_path] = (torch.tensor([20]), torch.full((1, width), -size))
    else:
        where = metadata.head_path if kind == "saved head" else metadata.embedding_path
        path = "head_weight" if kind == "saved head" else "embedding_table"
        huge.replaced[f"{where}.weight"] = torch.zeros(vocabulary, width)
        huge.replaced[f"{where}.weight"][5, 3] = size
    refused = driver_of(model_directory, dtype, runners[dtype], huge=huge).load("huge", "huge")
    assert isinstance(refused, RequestFailed) and refused.kind is FailureKind.UNFIT
    assert path in refused.message and "overflows" in refused.message


@pytest.mark.parametrize("size", _SIZES)
def test_components_out_of_all_proportion_are_refused_by_tensor(
    model_directory: Path, metadata: BaseMetadata, size: float
) -> None:
    driver = driver_of(model_directory, "float32")
    names = random_weights(metadata, EVERYTHING, seed=1).extras
    host = driver.core._runner.adapters  # type: ignore[attr-defined]
    for name in names:
        weights = random_weights(metadata, EVERYTHING, seed=1)
        weights.extras[name].view(-1)[-1] = -size
        with pytest.raises(AdapterError, match="overflows") as refused:
            host.take(weights)
        assert name in str(refused.value)


@pytest.mark.parametrize("exponent", [*range(-2, 8), *range(8, 39, 6)])
def test_whatever_is_accepted_answers_as_float64_does(
    model_directory: Path, metadata: BaseMetadata, exponent: int
) -> None:
    """The definition in float64 has no overflow, so a size that is served must give its scores."""
    weights = random_weights(metadata, seed=1, targets=("q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"))
    for module in weights.lora.values():
        module.b.mul_(10.0**exponent)
    driver = driver_of(model_directory, "float32", sized=weights)
    reply = driver.load("sized", "sized")
    if isinstance(reply, RequestFailed):
        assert exponent >= 3 and "overflows" in reply.message
        return
    ids = [1, *range(20, 60)]
    driver.add(ScoreRequest(request_id="score", token_ids=ids[:1], continuations=[ids[1:]], adapter="sized"))
    scored = driver.run()["score"].score
    assert scored is not None
    model = merged_reference(AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float64), weights)
    with torch.inference_mode():
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = log_probs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    found = torch.tensor(scored.scores[0].token_log_probs, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_values_too_large_for_the_models_dtype_are_refused(model_directory: Path, metadata: BaseMetadata) -> None:
    large = random_weights(metadata, seed=1, targets=("q_proj",))
    next(iter(large.lora.values())).b[0, 0] = 3.4e38
    refused = driver_of(model_directory, "bfloat16", large=large).load("large", "large")
    assert isinstance(refused, RequestFailed) and "too large for bfloat16" in refused.message


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bytes_are_of_what_is_held(model_directory: Path, metadata: BaseMetadata, dtype: str) -> None:
    weights = random_weights(metadata, EVERYTHING, seed=1, targets=("q_proj",))
    driver = driver_of(model_directory, dtype, one=weights)
    assert isinstance(driver.load("one", "one"), AdapterReply)
    size = 4 if dtype == "float32" else 2
    floats = sum(m.a.numel() + m.b.numel() for m in weights.lora.values()) + sum(
        t.numel() for t in weights.extras.values()
    )
    heads = next(t.numel() for name, t in weights.extras.items() if "attention_bias" in name and t.ndim == 2)
    # Held once more: the adherence head in float32.
    adherence = sum(t.numel() for name, t in weights.extras.items() if name.startswith("adherence_head."))
    assert driver.core.stats().adapter_bytes == size * floats + 4 * (heads + adherence)


def test_generated_tokens_are_response_whatever_the_prompt_says(model_directory: Path, metadata: BaseMetadata) -> None:
    weights = random_weights(metadata, ComponentsConfig(segment_embedding=True), seed=1)
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
