"""What the adherence head of an adapter says of answers, against the trainer's own score of the same head and text."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.registry import strategies
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.adapter import AdapterReply
from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams
from ift_serve.engine.protocol.reasoning import BestOf
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.protocol.score import ScoreOutput, ScoreRequest
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.engines.thread import local_engine
from ift_serve.frontend.adherence import score_adherence
from ift_serve.frontend.errors import EngineError
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.components.config import ComponentsConfig
from ift_serve.modeling.decoder.model_loader import load_model
from ift_training.losses.multi_task import TaskBalance
from ift_training.model.instruction_model import InstructionModel
from tests.support.adapters import EVERYTHING, MemoryHost, random_components, random_weights, write_random
from tests.support.engine_driver import Driver
from tests.support.models import tiny_llama

PROMPT = [(17 * i + 5) % 280 + 6 for i in range(21)]
SEGMENTS = bytes([0, 1, 1, 1, 2, 2, 1, 1, 0, 1, 1, 0] + [0] * 9)
TURNS = bytes([0, 1, 1, 1, 0, 3, 3, 3, 0, 1, 1, 0] + [0] * 9)
"""A conversation in which the model has answered before."""
ANSWERS = [[(29 * i + 11 * n) % 270 + 8 for i in range(5 + 9 * n)] for n in range(3)]
HEAD = ComponentsConfig(adherence_head=8)
INSTRUCTED = ComponentsConfig(instruction_encoder=16, adherence_head=24)
CONFIGS = {"head": HEAD, "instructed": INSTRUCTED, "everything": EVERYTHING, "headless": ComponentsConfig()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


def _driver(model: Path, **config: Any) -> Driver:
    defaults: dict[str, Any] = {"total_blocks": 64, "max_batch_tokens": 64, "max_sequences": 7}
    settings = EngineConfig(model=str(model), dtype="float32", **(defaults | config))
    runner, metadata = ModelRunner(settings), BaseMetadata.of_directory(model)
    weights = {name: random_weights(metadata, own, seed=7) for name, own in CONFIGS.items()}
    context = StrategyContext.of_model(str(model), [])
    host = MemoryHost(runner.adapters, weights)
    driver = Driver(EngineCore(runner, settings, strategies(context), adapter_tensors=host))
    for name in weights:
        assert isinstance(driver.load(name, name), AdapterReply)
    return driver


@pytest.fixture(scope="module")
def driver(model: Path) -> Driver:
    return _driver(model)


def _trained(model: Path, adapter: str, segments: bytes, answer: list[int]) -> float:
    """The probability by the trainer's forward pass."""
    base = load_model(str(model), dtype="float32").model
    components = random_components(BaseMetadata.of_directory(model), CONFIGS[adapter], seed=7)
    trained = InstructionModel(base, components, TaskBalance(["task"], None), represents=False)
    ids = torch.tensor([[*PROMPT, *answer]])
    marks = torch.tensor([[*segments, *[3] * len(answer)]], dtype=torch.uint8)
    tokens = trained.tokens(ids, marks, torch.zeros_like(ids), 1)
    with torch.no_grad():
        hidden, tokens = trained.hidden_states(ids, torch.arange(ids.shape[1])[None], torch.zeros_like(ids), tokens)
        return float(torch.sigmoid(components.adherence(hidden, tokens))[0])


def _ask(number: str, adapter: str, segments: bytes = SEGMENTS, answers: list[list[int]] = ANSWERS) -> ScoreRequest:
    return ScoreRequest(
        request_id=number,
        token_ids=PROMPT,
        segment_ids=segments,
        continuations=answers,
        adherence=True,
        adapter=adapter,
    )


def _scores(driver: Driver, request: ScoreRequest) -> ScoreOutput:
    driver.add(request)
    answer = driver.run()[request.request_id]
    assert answer.failure is None and answer.score is not None, answer.failure
    return answer.score


@pytest.mark.parametrize("segments", [SEGMENTS, TURNS], ids=["one turn", "several turns"])
@pytest.mark.parametrize("adapter", ["head", "instructed", "everything"])
def test_answers_are_judged_as_the_trainer_judges_them(
    model: Path, driver: Driver, adapter: str, segments: bytes
) -> None:
    expected = [_trained(model, adapter, segments, answer) for answer in ANSWERS]
    assert max(expected) - min(expected) > 0.02
    for again in range(2):  # the second time the prompt is in the cache
        output = _scores(driver, _ask(f"{adapter} {segments.hex()} {again}", adapter, segments))
        assert [score.adherence for score in output.scores] == pytest.approx(expected, abs=1e-5)
    single = _scores(driver, _ask(f"{adapter} {segments.hex()} alone", adapter, segments, ANSWERS[1:2]))
    assert single.scores[0].adherence == pytest.approx(expected[1], abs=1e-5)


@pytest.mark.parametrize("segments", [SEGMENTS, TURNS], ids=["one turn", "several turns"])
def test_log_probabilities_are_what_they_are_without_a_judgement(driver: Driver, segments: bytes) -> None:
    plain = ScoreRequest(
        request_id=f"plain {segments.hex()}",
        token_ids=PROMPT,
        segment_ids=segments,
        continuations=ANSWERS,
        adapter="everything",
    )
    expected = _scores(driver, plain).scores
    found = _scores(driver, _ask(f"judged {segments.hex()}", "everything", segments)).scores
    for one, other in zip(expected, found, strict=True):
        assert one.adherence is None and one.is_greedy == other.is_greedy
        assert one.token_log_probs == pytest.approx(other.token_log_probs, abs=1e-4)
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)


def test_the_steps_that_a_judgement_takes_change_nothing(model: Path, driver: Driver) -> None:
    """Chunks of seven tokens, and blocks for two sequences, so that some are preempted."""
    narrow = _driver(model, max_batch_tokens=7, total_blocks=6, prefix_caching=False)
    expected = [s.adherence for s in _scores(driver, _ask("wide", "instructed", TURNS)).scores]
    found = [s.adherence for s in _scores(narrow, _ask("narrow", "instructed", TURNS)).scores]
    assert found == pytest.approx(expected, abs=1e-5)


def _best_of(number: str, adapter: str, **changes: int) -> GenerateRequest:
    sampling = SamplingParams(temperature=2.0, seed=5, max_new_tokens=12)
    settings = BestOf(samples=6, by="adherence")
    return GenerateRequest(
        request_id=number,
        token_ids=PROMPT,
        segment_ids=SEGMENTS,
        strategy="best_of",
        reasoning=settings,
        sampling=sampling,
        adapter=adapter,
    )


@pytest.mark.parametrize("adapter", ["instructed", "everything"])
def test_the_best_of_several_draws_is_what_the_head_finds_best(driver: Driver, adapter: str) -> None:
    """Each sample's score is that of the same tokens by themselves; the greatest is shown."""
    driver.add(_best_of(f"best {adapter}", adapter))
    answer = driver.run()[f"best {adapter}"]
    assert answer.failure is None, answer.failure
    conclusion = answer.outputs[-1].conclusion
    assert conclusion is not None and conclusion.mode == "best_of"
    confidences = [branch.confidence for branch in conclusion.branches]
    assert len(confidences) == 6 and len(set(confidences)) > 1
    assert conclusion.confidence == max(confidences)
    alone = _scores(driver, _ask(f"alone {adapter}", adapter, answers=[answer.tokens[0]])).scores[0]
    assert alone.adherence == pytest.approx(conclusion.confidence, abs=1e-5)
    assert [branch.chosen for branch in conclusion.branches].index(True) == confidences.index(max(confidences))


def test_a_request_with_no_sequence_to_spare_is_judged_too(model: Path) -> None:
    narrow = _driver(model, max_sequences=2)
    wide = _driver(model)
    found = []
    for one in (narrow, wide):
        one.add(_best_of("a", "instructed"))
        answer = one.run()["a"]
        assert answer.failure is None, answer.failure
        conclusion = answer.outputs[-1].conclusion
        assert conclusion is not None
        found.append([branch.confidence for branch in conclusion.branches])
    assert found[0] == pytest.approx(found[1], abs=1e-5)


@pytest.mark.parametrize("adapter", ["headless", ""])
def test_without_a_head_it_is_refused_by_name(driver: Driver, adapter: str) -> None:
    driver.add(_best_of(f"refused {adapter}", adapter), _ask(f"refused too {adapter}", adapter))
    answers = driver.run()
    for number, field in ((f"refused {adapter}", "reasoning.best_of.by"), (f"refused too {adapter}", "adherence")):
        failure = answers[number].failure
        assert failure is not None and failure.kind is FailureKind.INVALID and failure.field == field
        assert "adherence head" in failure.message and (adapter or "base model") in failure.message


def test_an_empty_answer_cannot_be_judged(driver: Driver) -> None:
    driver.add(_ask("empty", "head", answers=[[9], []]))
    failure = driver.run()["empty"].failure
    assert failure is not None and failure.field == "continuations[1]"


def test_an_answer_that_fills_the_context_to_its_end_is_judged(model: Path) -> None:
    narrow = _driver(model, context_length=32)
    full = [9] * (32 - len(PROMPT))
    assert _scores(narrow, _ask("full", "head", answers=[full])).scores[0].adherence is not None
    narrow.add(_ask("over", "head", answers=[[*full, 9]]))
    failure = narrow.run()["over"].failure
    assert failure is not None and failure.field == "continuations[0]"


def test_the_front_asks_by_one_call(model: Path, driver: Driver, tmp_path: Path) -> None:
    directory = write_random(tmp_path / "a", BaseMetadata.of_directory(model), INSTRUCTED, seed=7, targets=())

    async def asked() -> list[float]:
        engine = local_engine(EngineConfig(model=str(model), dtype="float32", total_blocks=64))
        await engine.start()
        try:
            await engine.load_adapter("mine", str(directory))
            with pytest.raises(EngineError, match="adherence head"):
                await score_adherence(engine, "refused", PROMPT, SEGMENTS, ANSWERS, "")
            return await score_adherence(engine, "a", PROMPT, SEGMENTS, ANSWERS, "mine")
        finally:
            await engine.close()

    expected = [score.adherence for score in _scores(driver, _ask("front", "instructed")).scores]
    assert asyncio.run(asked()) == pytest.approx(expected, abs=1e-5)
    assert all(one is not None and math.isfinite(one) for one in expected)
