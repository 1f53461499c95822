"""Confidences by the calibration temperature of the request's adapter; what is told of tokens stays raw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.registry import strategies
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.adapter import AdapterReply
from ift_serve.engine.protocol.generate import BranchSummary, GenerateRequest, SamplingParams
from ift_serve.engine.protocol.reasoning import AnswerKind, AnswerSpan, Branch, Vote
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.config import BaseReference, IftConfig
from ift_serve.modeling.adapter_format.weights import AdapterWeights
from ift_serve.modeling.components.config import ComponentsConfig
from tests.support.adapters import MemoryHost, random_weights, shape_of
from tests.support.engine_driver import Answer, Driver
from tests.support.models import tiny_llama

PROMPT = [(17 * i + 5) % 280 + 6 for i in range(21)]
TEMPERATURE = 0.4
WHOLE = AnswerSpan(kind=AnswerKind.PATTERN, pattern="(?s).+")
HEADS = ComponentsConfig(adherence_head=4)
"""Of which none changes a token."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


def _adapter(metadata: BaseMetadata, temperature: float | None) -> AdapterWeights:
    base = BaseReference(fingerprint=metadata.fingerprint, architecture=metadata.architecture, shape=shape_of(metadata))
    config = IftConfig(base=base, components=HEADS, calibration_temperature=temperature)
    return replace(random_weights(metadata, HEADS, seed=1), config=config, version=str(temperature))


@pytest.fixture(scope="module")
def driver(model: Path) -> Driver:
    settings = EngineConfig(model=str(model), dtype="float32", total_blocks=64, max_batch_tokens=64)
    runner, metadata = ModelRunner(settings), BaseMetadata.of_directory(model)
    weights = {"plain": _adapter(metadata, None), "calibrated": _adapter(metadata, TEMPERATURE)}
    context = StrategyContext.of_model(str(model), [])
    host = MemoryHost(runner.adapters, weights)
    driver = Driver(EngineCore(runner, settings, strategies(context), adapter_tensors=host))
    for name in weights:
        assert isinstance(driver.load(name, name), AdapterReply)
    return driver


def _answer(driver: Driver, number: str, adapter: str, settings: Branch | Vote, **sampling: float) -> Answer:
    driver.add(
        GenerateRequest(
            request_id=number,
            token_ids=PROMPT,
            strategy="branch" if isinstance(settings, Branch) else "vote",
            reasoning=settings,
            sampling=SamplingParams(max_new_tokens=6, ignore_eos=True, seed=4, **sampling),  # type: ignore[arg-type]
            adapter=adapter,
        )
    )
    answer = driver.run()[number]
    assert answer.failure is None, answer.failure
    return answer


def _branches(answer: Answer) -> list[BranchSummary]:
    conclusion = answer.outputs[-1].conclusion
    assert conclusion is not None
    return conclusion.branches


def _confidences(answer: Answer) -> list[float]:
    return [branch.confidence for branch in _branches(answer)]


def test_branches_are_compared_by_calibrated_probabilities(model: Path, driver: Driver) -> None:
    """p1 - p2 of ``softmax(l / T)``, in float64 by transformers' own model."""
    settings = Branch(width=1, span=WHOLE)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    for adapter, temperature in (("plain", 1.0), ("calibrated", TEMPERATURE), ("", 1.0)):
        answer = _answer(driver, f"branch {adapter}", adapter, settings, temperature=0.0)
        tokens = answer.tokens[0]
        with torch.no_grad():
            logits = network(torch.tensor([[*PROMPT, *tokens]])).logits[0, len(PROMPT) - 1 : -1]
        two = torch.softmax(logits / temperature, 1).topk(2).values
        assert _confidences(answer) == pytest.approx([float((two[:, 0] - two[:, 1]).mean())], abs=1e-4)


def test_what_is_told_of_tokens_stays_raw(driver: Driver) -> None:
    settings = Branch(width=1, span=WHOLE)
    told = []
    for adapter in ("plain", "calibrated"):
        answer = _answer(driver, f"raw {adapter}", adapter, settings, temperature=0.0)
        told.append([one for output in answer.outputs for one in output.statistics])
    assert told[0] == told[1] and len(told[0]) == 6


def test_votes_weigh_calibrated_confidence(driver: Driver) -> None:
    settings = Vote(samples=4, weight="confidence", stop="all", span=WHOLE)
    plain, calibrated = (
        _answer(driver, f"vote {adapter}", adapter, settings, temperature=1.0) for adapter in ("plain", "calibrated")
    )
    drawn = [[(branch.answer, branch.tokens) for branch in _branches(answer)] for answer in (plain, calibrated)]
    assert drawn[0] == drawn[1]
    # A distribution made sharper has its 20 most likely tokens further apart.
    assert all(b > a + 1e-3 for a, b in zip(_confidences(plain), _confidences(calibrated), strict=True))
