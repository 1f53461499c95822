"""A model computed by two processes together answers as transformers' own in one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.adapter import AdapterReply
from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams
from ift_serve.engine.protocol.results import RequestFailed
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.weights import AdapterWeights, LoraModule
from ift_serve.modeling.components.config import ComponentsConfig
from ift_serve.modeling.decoder.model_loader import UnsupportedModelError, load_model
from ift_serve.modeling.decoder.sharding import check_shards, take_shard
from tests.support.adapters import MemoryHost, random_weights
from tests.support.architectures import build
from tests.support.engine_driver import Driver
from tests.support.unchecked import unchecked_runner

TEXT = [(17 * i + 5) % 150 + 6 for i in range(41)]
EVERYWHERE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")


def _config(path: Path, **options: Any) -> EngineConfig:
    settings: dict[str, Any] = {"total_blocks": 48, "max_batch_tokens": 24, "max_sequences": 6, "threads": 2}
    return EngineConfig(model=str(path), dtype="float32", **(settings | options))


def _core(runner: ModelRunner, path: Path, weights: dict[str, AdapterWeights] | None = None) -> EngineCore:
    host = MemoryHost(runner.adapters, weights or {})
    return EngineCore(runner, _config(path), STRATEGIES, adapter_tensors=host)  # type: ignore[arg-type]


def _score(driver: Driver, adapter: str = "") -> list[float]:
    name = f"score {adapter}"
    driver.add(ScoreRequest(request_id=name, token_ids=TEXT[:1], continuations=[TEXT[1:]], adapter=adapter))
    score = driver.run()[name].score
    assert score is not None
    return score.scores[0].token_log_probs


def _request(name: str, count: int, **options: Any) -> GenerateRequest:
    sampling = SamplingParams(**({"temperature": 0.0, "max_new_tokens": 12, "ignore_eos": True, "seed": 3} | options))
    return GenerateRequest(request_id=name, token_ids=TEXT[:count], sampling=sampling)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def pair(llama: Path) -> Iterator[ModelRunner]:
    """Rank 0 of two."""
    runner = ModelRunner(_config(llama, tensor_parallel=2))
    yield runner
    runner.close()


def _own(path: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")


def _agrees_with_transformers(runner: ModelRunner, path: Path) -> None:
    model = _own(path)
    driver = Driver(_core(runner, path))
    with torch.inference_mode():
        log_probs = torch.log_softmax(model(torch.tensor([TEXT])).logits[0], -1)
    expected = log_probs[:-1].gather(1, torch.tensor(TEXT[1:])[:, None])[:, 0].tolist()
    assert _score(driver) == pytest.approx(expected, abs=1e-5)
    for count in (1, 7, 30):
        driver.add(_request(str(count), count))
    answers = driver.run()
    for count in (1, 7, 30):
        own = model.generate(
            torch.tensor([TEXT[:count]]), max_new_tokens=12, min_new_tokens=12, do_sample=False, eos_token_id=None
        )
        assert answers[str(count)].tokens[0] == own[0, count:].tolist()


@pytest.mark.parametrize("name", ["qwen3", "gpt-neox"])
def test_other_models_agree_with_transformers(name: str, tmp_path: Path) -> None:
    """Before ``pair`` begins: a process is a rank of one model at a time."""
    path = build(name, tmp_path)
    runner = ModelRunner(_config(path, tensor_parallel=2))
    try:
        _agrees_with_transformers(runner, path)
    finally:
        runner.close()


def test_two_ranks_agree_with_transformers(pair: ModelRunner, llama: Path) -> None:
    _agrees_with_transformers(pair, llama)


def test_an_answer_does_not_depend_on_the_rest_of_the_batch(pair: ModelRunner, llama: Path) -> None:
    drawn = _request("drawn", 9, temperature=0.9, top_logprobs=2)
    driver = Driver(_core(pair, llama))
    driver.add(drawn)
    alone = driver.run()["drawn"]
    driver = Driver(_core(pair, llama))
    driver.add(*(_request(str(count), count) for count in (3, 11, 30)), drawn, _request("behind", 17))
    beside = driver.run()["drawn"]
    assert [o.statistics for o in beside.outputs] == [o.statistics for o in alone.outputs]
    assert beside.tokens == alone.tokens


def test_an_aborted_request_leaves_the_ranks_in_step(pair: ModelRunner, llama: Path) -> None:
    driver = Driver(_core(pair, llama))
    driver.add(_request("whole", 9))
    whole = driver.run()["whole"].tokens
    driver = Driver(_core(pair, llama))
    driver.add(_request("gone", 30), _request("stays", 9))
    for _ in range(4):
        driver.step()
    driver.core.abort("gone")
    assert driver.run()["stays"].tokens == whole
    assert not driver.answers["gone"].finished


@pytest.fixture(scope="module")
def metadata(llama: Path) -> BaseMetadata:
    return BaseMetadata.of_directory(llama)


def test_low_rank_changes_are_divided(pair: ModelRunner, llama: Path, metadata: BaseMetadata) -> None:
    weights = {
        f"a{rank}": random_weights(metadata, seed=rank, rank=rank, targets=targets)
        for rank, targets in ((3, EVERYWHERE), (8, ("o_proj", "up_proj")))
    }
    parts = Driver(_core(pair, llama, weights))
    whole = Driver(_core(unchecked_runner(_config(llama)), llama, weights))
    base = _score(parts)
    for name in weights:
        assert isinstance(parts.load(name, name), AdapterReply) and isinstance(whole.load(name, name), AdapterReply)
        changed = _score(parts, name)
        assert changed == pytest.approx(_score(whole, name), abs=1e-5)
        assert changed != pytest.approx(base, abs=1e-2)
    parts.unload("a3")
    parts.run()
    assert _score(parts, "a8") == pytest.approx(_score(whole, "a8"), abs=1e-5)
    assert _score(parts) == base


def _with_magnitude(weights: AdapterWeights) -> AdapterWeights:
    path, module = next(iter(weights.lora.items()))
    weights.lora[path] = LoraModule(module.a, module.b, module.scale, torch.ones(len(module.b)))
    return weights


def _with_embeddings(weights: AdapterWeights, metadata: BaseMetadata) -> AdapterWeights:
    table = torch.zeros(metadata.shapes[f"{metadata.embedding_path}.weight"])
    return dataclasses.replace(weights, replaced={f"{metadata.embedding_path}.weight": table})


def test_what_cannot_be_divided_of_an_adapter_is_refused_by_name(
    pair: ModelRunner, llama: Path, metadata: BaseMetadata
) -> None:
    plain = ("q_proj",)
    gate = ComponentsConfig(instruction_encoder=16, instruction_gate=4)
    bias, segments = ComponentsConfig(attention_bias=True), ComponentsConfig(segment_embedding=True)
    weights = {
        "q_proj": _with_magnitude(random_weights(metadata, seed=1, targets=plain)),
        "embed_tokens": _with_embeddings(random_weights(metadata, seed=2, targets=plain), metadata),
        "instruction_gate": random_weights(metadata, gate, seed=3),
        "attention_bias": random_weights(metadata, bias, seed=4),
        "segment_embedding": random_weights(metadata, segments, seed=5),
    }
    driver = Driver(_core(pair, llama, weights))
    for name in weights:
        reply = driver.load(name, name)
        assert isinstance(reply, RequestFailed) and "tensor_parallel" in reply.message
        assert name in reply.message


def test_heads_beside_the_layers_are_served(pair: ModelRunner, llama: Path, metadata: BaseMetadata) -> None:
    heads = ComponentsConfig(instruction_encoder=16, temperature_head=8, adherence_head=8)
    driver = Driver(_core(pair, llama, {"heads": random_weights(metadata, heads, seed=6)}))
    assert isinstance(driver.load("heads", "heads"), AdapterReply)
    assert _score(driver, "heads") == _score(driver)


@pytest.mark.parametrize(
    ("name", "options", "size", "why"),
    [
        ("llama", {}, 3, "4 attention heads"),
        ("llama", {}, 4, "2 key-value heads"),
        ("llama", {"intermediate_size": 97}, 2, "97 outputs"),
        ("phi3", {}, 2, "_proj as (colwise_gather_output|rowwise_split_input)"),
        ("olmo2", {}, 2, "_proj as (colwise_gather_output|rowwise_split_input)"),
    ],
)
def test_models_that_do_not_divide_are_refused_by_name(
    name: str, options: dict[str, Any], size: int, why: str, tmp_path: Path
) -> None:
    loaded = load_model(str(build(name, tmp_path, **options)), dtype="float32")
    with pytest.raises(UnsupportedModelError, match=f"tensor_parallel: .*{why}"):
        check_shards(loaded, size)


def test_a_vocabulary_that_does_not_divide_is_padded(tmp_path: Path) -> None:
    path = str(build("llama-biased", tmp_path, vocab_size=157))
    parts: list[Any] = [take_shard(load_model(path, dtype="float32"), rank, 2).model for rank in (0, 1)]
    heads = [part.lm_head.weight for part in parts]
    whole: Any = load_model(path, dtype="float32").model
    assert torch.equal(torch.cat(heads)[:157], whole.lm_head.weight)
    assert not torch.cat(heads)[157:].any()
    assert all(torch.equal(part.model.embed_tokens.weight, whole.lm_head.weight) for part in parts)


@pytest.mark.parametrize("refused", [{"speculation": "lookup"}, {"weights": "int8"}])
def test_settings_that_ranks_do_not_share_are_refused(refused: dict[str, Any]) -> None:
    (name,) = refused
    with pytest.raises(ValueError, match=f"{name}: .* tensor_parallel"):
        EngineConfig(model="m", tensor_parallel=2, **refused)
