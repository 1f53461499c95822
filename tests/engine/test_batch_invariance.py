"""``batch_invariant`` on the Triton kernels, in the interpreter, and where it changes nothing or cannot be."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.adapter import AdapterReply
from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams
from ift_serve.engine.protocol.results import RequestFailed
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.components.config import ComponentsConfig
from tests.support.adapters import MemoryHost, random_weights
from tests.support.architectures import build
from tests.support.engine_driver import Answer, Driver
from tests.support.models import tiny_llama
from tests.support.unchecked import unchecked_runner


def _config(path: Path, **options: Any) -> EngineConfig:
    settings: dict[str, Any] = {"total_blocks": 24, "max_batch_tokens": 12, "max_sequences": 4, "threads": 1}
    return EngineConfig(model=str(path), dtype="float32", batch_invariant=True, **(settings | options))


def _request(name: str, count: int, adapter: str = "") -> GenerateRequest:
    sampling = SamplingParams(temperature=0.9, seed=5, max_new_tokens=2, ignore_eos=True)
    ids = [(7 * count + 11 * i) % 290 + 6 for i in range(count)]
    segments = bytes([1, 1, 0] * count)[:count]
    return GenerateRequest(request_id=name, token_ids=ids, segment_ids=segments, sampling=sampling, adapter=adapter)


def _bits(answer: Answer) -> list[Any]:
    return [(output.token_ids, output.statistics) for output in answer.outputs]


def test_an_answer_has_the_same_bits_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter = pytest.importorskip("triton.runtime.interpreter", reason="Triton is there on Linux only")
    from tests.support.interpreter import ordered_dot

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", ordered_dot)
    path = tiny_llama(tmp_path)
    config = _config(path, attention_backend="triton", prefix_caching=False)
    runner = unchecked_runner(config)
    assert runner.description.attention_backend == "fused/triton_invariant"
    metadata = BaseMetadata.of_directory(path)
    biased = ComponentsConfig(instruction_encoder=16, attention_bias=True)
    weights = {
        "low-rank": random_weights(metadata, seed=1, targets=("q_proj", "down_proj")),
        "biased": random_weights(metadata, biased, seed=2, targets=("v_proj",)),
    }

    def answers(*requests: GenerateRequest) -> dict[str, Answer]:
        host: Any = MemoryHost(runner.adapters, weights)
        driver = Driver(EngineCore(runner, config, STRATEGIES, adapter_tensors=host))
        for name in weights:
            assert isinstance(driver.load(name, name), AdapterReply)
        driver.add(*requests)
        return driver.run()

    base, adapted = _request("base", 17), _request("adapted", 14, "low-rank")
    # Beside others its prompt is computed in other chunks, and its tokens beside other rows.
    beside = answers(_request("biased", 9, "biased"), base, adapted)
    for request in (base, adapted):
        alone = answers(request)[request.request_id]
        assert _bits(alone) == _bits(beside[request.request_id])


def test_adapters_that_plain_products_compute_are_refused(tmp_path: Path) -> None:
    path = tiny_llama(tmp_path)
    runner = unchecked_runner(_config(path))
    metadata = BaseMetadata.of_directory(path)
    fusion = ComponentsConfig(instruction_encoder=16, two_stream=4)
    weights = {"fusion": random_weights(metadata, fusion, seed=1), "plain": random_weights(metadata, seed=2)}
    host: Any = MemoryHost(runner.adapters, weights)
    driver = Driver(EngineCore(runner, _config(path), STRATEGIES, adapter_tensors=host))
    refused = driver.load("fusion", "fusion")
    assert isinstance(refused, RequestFailed) and "batch_invariant" in refused.message
    assert isinstance(driver.load("plain", "plain"), AdapterReply)


def test_on_the_cpu_it_is_so_anyway(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        runner = ModelRunner(_config(tiny_llama(tmp_path)))
    assert "batch_invariant: on this processor answers do not depend on the batch anyway" in caplog.text
    assert runner.description.attention_backend == "fused/cpu"
    assert "batch_invariant" in runner.description.features


def test_models_of_plain_products_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_invariant: PhimoeForCausalLM"):
        ModelRunner(_config(build("phimoe", tmp_path)))
    with pytest.raises(ValueError, match="batch_invariant: the reference backend"):
        _config(tmp_path, attention_backend="reference")
