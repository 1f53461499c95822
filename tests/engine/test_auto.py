"""What classifies instructions: the head of the request's adapter, when the request comes in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.registry import strategies
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.adapter import AdapterReply
from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams
from ift_serve.engine.protocol.reasoning import AnswerKind, AnswerSpan, Auto, Branch, Trace
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.weights import AdapterWeights
from ift_serve.modeling.components.config import ComponentsConfig
from ift_serve.modeling.components.heads import MODES
from ift_serve.modeling.components.tokens import TokenBatch
from ift_serve.modeling.decoder.model_loader import load_model
from tests.support.adapters import MemoryHost, random_components, random_weights
from tests.support.engine_driver import Driver
from tests.support.models import tiny_llama

CLASSIFIER = ComponentsConfig(instruction_encoder=16, mode_classifier=8)
SEGMENTS = bytes([0, *[1] * 9, 0, 0])
PROMPTS = [[0, *[(31 * i * (n + 3) + 7 * n) % 260 + 8 for i in range(9)], 4, 5] for n in range(24)]
SETTINGS = Auto(
    trace=Trace(budget=4, open_marker="<think>", close_marker="</think>"),
    branch=Branch(width=3, span=AnswerSpan(kind=AnswerKind.PATTERN, pattern="(?s).+")),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


def _always(metadata: BaseMetadata, mode: str) -> AdapterWeights:
    """One that says the same of everything."""
    weights = random_weights(metadata, CLASSIFIER, seed=1)
    weights.extras["mode_classifier.output.weight"].zero_()
    weights.extras["mode_classifier.output.bias"].zero_()[MODES.index(mode)] = 1.0
    return replace(weights, version=mode)


def _mixed(model: Path, metadata: BaseMetadata) -> tuple[AdapterWeights, list[str]]:
    """One that says different things of different instructions, and what its components say of the prompts.

    The bias is set so that no mode leads on the whole.
    """
    weights = random_weights(metadata, CLASSIFIER, seed=5)
    components = random_components(metadata, CLASSIFIER, seed=5)
    assert components.mode_classifier is not None
    embed: torch.nn.Module = load_model(str(model), dtype="float32").model.get_input_embeddings()  # type: ignore[operator]
    vectors: list[Tensor] = []
    with torch.no_grad():
        for prompt in PROMPTS:
            ids, marks = torch.tensor(prompt), torch.tensor(list(SEGMENTS), dtype=torch.uint8)
            tokens = TokenBatch(ids, marks, torch.zeros_like(ids), 1)
            vector = components.instruction_vector(embed(ids), tokens)
            assert vector is not None
            vectors.append(vector)
        logits = torch.cat([components.mode_classifier(vector) for vector in vectors])
        weights.extras["mode_classifier.output.bias"] -= logits.median(0).values
        components.load_state_dict(weights.extras)
        return weights, [components.mode(vector) for vector in vectors]


@pytest.fixture(scope="module")
def driver(model: Path) -> Driver:
    settings = EngineConfig(model=str(model), dtype="float32", total_blocks=64, max_batch_tokens=64)
    runner, metadata = ModelRunner(settings), BaseMetadata.of_directory(model)
    weights = {mode: _always(metadata, mode) for mode in MODES}
    weights["mixed"], _ = _mixed(model, metadata)
    weights["headless"] = random_weights(metadata, seed=2, targets=("q_proj",))
    context = replace(StrategyContext.of_model(str(model), []), classify=runner.adapters.choose_mode)
    host = MemoryHost(runner.adapters, weights)
    driver = Driver(EngineCore(runner, settings, strategies(context), adapter_tensors=host))
    for name in weights:
        assert isinstance(driver.load(name, name), AdapterReply)
    return driver


def _request(number: str, adapter: str, prompt: list[int] = PROMPTS[0]) -> GenerateRequest:
    return GenerateRequest(
        request_id=number,
        token_ids=prompt,
        segment_ids=SEGMENTS,
        strategy="auto",
        reasoning=SETTINGS,
        sampling=SamplingParams(temperature=0.0, max_new_tokens=4, ignore_eos=True),
        adapter=adapter,
    )


def _modes(driver: Driver, *requests: GenerateRequest) -> list[str]:
    driver.add(*requests)
    answers = driver.run()
    found = [answers[request.request_id].outputs[-1].conclusion for request in requests]
    return ["" if conclusion is None else conclusion.mode for conclusion in found]


def test_the_adapter_of_the_request_decides_and_its_choice_is_told(driver: Driver) -> None:
    requests = [_request(f"a {mode}", mode) for mode in (*MODES, *MODES[::-1])][:3]
    assert _modes(driver, *requests) == list(MODES)


def test_the_choice_is_that_of_the_components_on_the_same_instruction(model: Path, driver: Driver) -> None:
    _, expected = _mixed(model, BaseMetadata.of_directory(model))
    assert len(set(expected)) > 1, "the prompts show no difference"
    assert _modes(driver, *(_request(f"b {n}", "mixed", prompt) for n, prompt in enumerate(PROMPTS))) == expected


@pytest.mark.parametrize("adapter", ["headless", ""])
def test_without_a_classifier_it_is_refused_by_name(driver: Driver, adapter: str) -> None:
    driver.add(_request(f"c {adapter}", adapter))
    failure = driver.run()[f"c {adapter}"].failure
    assert failure is not None and failure.kind is FailureKind.UNFIT and failure.field == "reasoning.auto"
    assert (adapter or "base model") in failure.message
