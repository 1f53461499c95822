"""Decode steps that are run from their records, against the decoder's own pass and against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ift_kernels.quantized_linear import runs_here
from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.adapter import AdapterReply
from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.engine.sequences.step import SamplingRow, SequenceStep, StepBatch
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.decoder import linear
from tests.support.adapters import MemoryHost, random_weights
from tests.support.architectures import build
from tests.support.engine_driver import Driver, generate

PROMPT = [3 + (37 * i + i * i) % 150 for i in range(20)]
BLOCKS = 6
"""Of each sequence."""


def _runner(path: Path, **options: Any) -> ModelRunner:
    return ModelRunner(EngineConfig(model=str(path), total_blocks=BLOCKS * 8, max_sequences=8, **options))


@pytest.fixture(params=["llama", "qwen3", "mistral"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model whose weights bf16 holds."""
    stored = build(request.param, tmp_path, dtype=torch.bfloat16)
    return stored


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor without products of bf16."""
    monkeypatch.setattr(linear, "has_bf16_products", lambda: False)


def _steps(texts: list[list[int]], first: int = 0) -> list[SequenceStep]:
    """The last token of each text, behind those that are in the cache, and a draw after it."""
    steps = []
    for index, text in enumerate(texts):
        row = SamplingRow(SamplingParams(temperature=0.0), 0, 0, 0.0, text, len(text))
        table = list(range(BLOCKS * (first + index), BLOCKS * (first + index + 1)))
        steps.append(SequenceStep(index, text[-1:], len(text) - 1, table, b"", row))
    return steps


def _fill(runner: ModelRunner, texts: list[list[int]]) -> None:
    for index, text in enumerate(texts):
        if len(text) > 1:
            table = list(range(BLOCKS * index, BLOCKS * (index + 1)))
            runner.execute(StepBatch([SequenceStep(index, text[:-1], 0, table, b"", None)], []))


@pytest.mark.usefixtures("packed")
def test_greedy_answers_are_those_of_transformers(path: Path) -> None:
    runner = _runner(path, dtype="float32")
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    texts = [[3 + (37 * i + i * i * n) % 150 for i in range(4 + 5 * n)] for n in range(5)]
    _fill(runner, texts)
    lengths = [len(text) for text in texts]
    for _ in range(8):
        found = runner.execute(StepBatch(_steps(texts), [])).sampled
        for text, drawn in zip(texts, found, strict=True):
            assert drawn is not None
            text.append(drawn.token_id)
    assert runner.recorded_sizes == (1, 5)
    for text, length in zip(texts, lengths, strict=True):
        logits = model(torch.tensor([text])).logits[0]
        assert text[length:] == logits[length - 1 : -1].argmax(-1).tolist()


@pytest.mark.usefixtures("packed")
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_batch_has_the_numbers_of_the_decoders_own_pass(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = build("llama", tmp_path_factory.mktemp("model"), dtype=torch.bfloat16)
    runner = _runner(path, dtype="float32")
    texts = data.draw(st.lists(st.lists(st.integers(3, 150), min_size=1, max_size=90), min_size=1, max_size=8))
    _fill(runner, texts)
    batches = data.draw(st.lists(st.lists(st.sampled_from(range(len(texts))), min_size=1, unique=True), max_size=6))
    for batch in [list(range(len(texts))), *batches]:
        steps = [_steps([texts[index]], index)[0] for index in batch]
        if len(batch) < 3:  # with guesses behind the last token, in tiles of up to four rows
            guesses = data.draw(st.integers(0, 5 - len(batch)))
            steps[0].token_ids += list(range(20, 20 + guesses))
        flat = runner._build_batch(steps)
        with torch.inference_mode():
            hidden = runner._decoder.forward(flat, None)
            logits = runner._decoder.logits(hidden)
            assert runner._recorded is not None and runner._recorded.takes(flat)
            found = runner._recorded.run(flat)
        assert torch.equal(found[0], hidden) and torch.equal(found[1], logits)


@pytest.mark.skipif(not runs_here(), reason="weights of 8 and 4 bits need AVX2")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_so_are_those_of_fewer_bits(weights: str, dtype: str, tmp_path: Path) -> None:
    runner = _runner(build("llama", tmp_path, dtype=torch.bfloat16), weights=weights, dtype=dtype)
    texts = [[5 + (11 * i + n) % 120 for i in range(30 + n)] for n in range(6)]
    _fill(runner, texts)
    alone = [runner.execute(StepBatch([_steps([text], n)[0]], [])).sampled[0] for n, text in enumerate(texts)]
    assert runner.execute(StepBatch(_steps(texts), [])).sampled == alone
    assert runner.recorded_sizes == ((1, 6) if linear.can_pack(getattr(torch, dtype)) else ())


def test_products_of_other_libraries_are_computed_each_time(path: Path) -> None:
    """Float32 that bf16 does not hold is multiplied by oneDNN."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 1e-4 * torch.randn_like(parameter)
    model.save_pretrained(path)
    runner = _runner(path, dtype="float32")
    text = [[7, 9, 30, 12]]
    _fill(runner, text)
    (drawn,) = runner.execute(StepBatch(_steps(text), [])).sampled
    assert drawn is not None and drawn.token_id == int(model.eval()(torch.tensor(text)).logits[0, -1].argmax())
    assert runner.recorded_sizes == ()


TARGETS = {"wide": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), "few": ("v_proj",)}


def _answers(path: Path, requests: list[tuple[str, int, int]], *, records: bool) -> tuple[list[Any], tuple[int, ...]]:
    """Tokens and statistics of requests (adapter, seed, tokens) that run together, with a reload between two halves."""
    config = EngineConfig(model=str(path), dtype="float32", total_blocks=64, max_sequences=8, max_batch_tokens=24)
    runner = ModelRunner(config)
    if not records:
        runner._recorded = None
    metadata = BaseMetadata.of_directory(path)
    weights = {
        "wide": random_weights(metadata, seed=1, rank=4, targets=TARGETS["wide"]),
        "few": random_weights(metadata, seed=2, rank=7, targets=TARGETS["few"]),
        "other": random_weights(metadata, seed=3, rank=33, targets=TARGETS["few"]),
    }
    driver = Driver(
        EngineCore(runner, config, STRATEGIES, adapter_tensors=cast(Any, MemoryHost(runner.adapters, weights)))
    )
    for name in ("wide", "few"):
        assert isinstance(driver.load(name, name), AdapterReply)
    made = [
        generate(f"{number}", PROMPT[: 5 + number], adapter=adapter, max_new_tokens=length, temperature=0.8, seed=seed)
        for number, (adapter, seed, length) in enumerate(requests)
    ]
    half = len(made) // 2
    driver.add(*made[:half])
    driver.run()
    assert isinstance(driver.load("few", "other"), AdapterReply)
    driver.add(*made[half:])
    driver.run()
    answers = [driver.answers[request.request_id] for request in made]
    assert all(answer.failure is None and answer.tokens[0] for answer in answers)
    told = [[(output.token_ids, output.statistics) for output in answer.outputs] for answer in answers]
    return told, runner.recorded_sizes


@pytest.mark.usefixtures("packed")
def test_adapters_in_the_batch_change_nothing_else(tmp_path: Path) -> None:
    """Other adapters in the same slots, of other ranks, in tiles of other sizes."""
    path = build("llama", tmp_path, dtype=torch.bfloat16)
    names = ["wide", "", "few", "wide", "few", "few", "", "wide", "few", "few"]
    requests = [(name, number, 4 + 3 * (number % 4)) for number, name in enumerate(names)]
    recorded, sizes = _answers(path, requests, records=True)
    computed, none = _answers(path, requests, records=False)
    assert recorded == computed
    assert len(sizes) > 3 and none == ()


@pytest.mark.usefixtures("packed")
def test_while_it_serves_a_kind_is_recorded_when_it_has_come_some_times(path: Path) -> None:
    runner = _runner(path, dtype="float32")
    texts = [[5 + (11 * i + n) % 120 for i in range(20 + n)] for n in range(3)]
    _fill(runner, texts)
    runner.begin_serving()
    before = runner.recorded_sizes
    answers: list[Any] = []
    for _ in range(5):
        assert (3 in runner.recorded_sizes) == (len(answers) > 3)
        answers.append(runner.execute(StepBatch(_steps(texts), [])).sampled)
    assert before == (1,) and runner.recorded_sizes == (1, 3)
    assert answers == [answers[0]] * 5
