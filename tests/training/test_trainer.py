"""The trainer: exact normalisation, resuming, and one code path with serving."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core import EngineCore
from ift_serve.engine.messages import AdapterReply, ScoreRequest
from ift_serve.engine.runner import ModelRunner
from ift_training.losses.ewc import fisher_information, save_fisher, trainable
from ift_training.settings import EwcSettings, LossSettings, MaskingSettings
from tests.support.architectures import build
from tests.support.engine_driver import Driver
from tests.support.models import tiny_llama, tiny_tokenizer
from tests.support.training import examples, grad_norm, settings, trainer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


def _step(model: Path, output: Path, batch: int, accumulation: int, **changes: Any) -> tuple[float, dict[str, float]]:
    run = trainer(model, settings(batch_size=batch, accumulation=accumulation, **changes), examples(8), output)
    run.train()
    return grad_norm(run), {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss_")}


def test_the_gradient_does_not_depend_on_how_a_step_is_cut(model: Path, tmp_path: Path) -> None:
    # A wrong response is taken from the neighbour in the batch, so this loss alone depends on the cut; see below.
    losses = LossSettings(representation=0.1, task_weights={"second": 2.0})
    found = [_step(model, tmp_path, b, a, losses=losses) for b, a in ((8, 1), (4, 2), (1, 8))]
    for norm, parts in found[1:]:
        assert norm == pytest.approx(found[0][0], rel=1e-5)
        assert parts == pytest.approx(found[0][1], rel=1e-4, abs=2e-6)


def test_packed_and_padded_batches_have_the_same_loss_and_gradient(model: Path, tmp_path: Path) -> None:
    padded, packed = (_step(model, tmp_path, 8, 1, packing=p) for p in (False, True))
    assert packed[0] == pytest.approx(padded[0], rel=1e-4)
    assert packed[1] == pytest.approx(padded[1], rel=1e-4)


def test_gradient_checkpointing_changes_nothing(model: Path, tmp_path: Path) -> None:
    plain, recomputed = (_step(model, tmp_path, 8, 1, gradient_checkpointing=g) for g in (False, True))
    assert recomputed[0] == pytest.approx(plain[0], rel=1e-5)


@pytest.mark.timeout(120)
def test_two_processes_compute_the_gradient_of_one(model: Path, tmp_path: Path) -> None:
    one = trainer(model, settings(batch_size=8, losses=LossSettings(representation=0.1)), examples(8), tmp_path)
    one.train()
    script = Path(__file__).parent.parent / "support" / "two_processes.py"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script),
         str(model), str(tmp_path / "two")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["grad_norm"] == pytest.approx(grad_norm(one), rel=1e-5)


def test_a_resumed_run_ends_with_the_same_bits(model: Path, tmp_path: Path) -> None:
    data = examples(24)
    chosen = settings(
        max_steps=6, save_steps=3, batch_size=4, schedule="cosine", masking=MaskingSettings(rate=0.3),
        learning_rate=1e-3, losses=LossSettings(instruction=0.5, representation=0.1, task_weights="learned"),
    )  # fmt: skip
    whole = trainer(model, chosen, data, tmp_path / "whole")
    whole.train()
    whole.save_model(str(tmp_path / "whole/end"))
    resumed = trainer(model, chosen, data, tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-3"))
    resumed.save_model(str(tmp_path / "resumed/end"))
    for name in ("adapter_model.safetensors", "ift_extras.safetensors", "training_state.safetensors"):
        first, second = (load_file(tmp_path / run / "end" / name) for run in ("whole", "resumed"))
        assert set(first) == set(second)
        assert all(torch.equal(first[key], second[key]) for key in first), name


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2"])
def test_what_was_trained_is_what_is_served(architecture: str, tmp_path: Path) -> None:
    path = build(architecture, tmp_path / "base")
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(path)
    data = examples(8, vocabulary=150)
    run = trainer(path, settings(max_steps=4, learning_rate=1e-2, component_learning_rate=1e-2), data, tmp_path / "run")
    run.train()
    run.save_model(str(tmp_path / "adapter"))
    expected = _trained_log_probs(run, data[0])
    config = EngineConfig(model=str(path), dtype="float32", total_blocks=8, max_batch_tokens=9, max_sequences=2)
    runner = ModelRunner(config)
    driver = Driver(EngineCore(runner, config, STRATEGIES, adapter_host=runner.adapters))
    reply = driver.load("trained", str(tmp_path / "adapter"))
    assert isinstance(reply, AdapterReply), reply
    start = data[0].response_start
    driver.add(
        ScoreRequest(
            request_id="s", token_ids=data[0].input_ids[:start], continuations=[data[0].input_ids[start:]],
            segment_ids=data[0].segment_ids[:start], adapter="trained",
        )
    )  # fmt: skip
    score = driver.run()["s"].score
    assert score is not None
    assert score.scores[0].token_log_probs == pytest.approx(expected, abs=1e-5)


def _trained_log_probs(run: Any, example: Any) -> list[float]:
    model = run.instruction_model.eval()
    ids = torch.tensor([example.input_ids])
    zeros = torch.zeros_like(ids)
    tokens = model.tokens(ids, torch.tensor([list(example.segment_ids)], dtype=torch.uint8), zeros, 1)
    with torch.no_grad():
        hidden, _ = model.hidden_states(ids, torch.arange(ids.shape[1])[None], zeros, tokens)
        logits = model.logits(hidden)
    start = example.response_start
    chosen = torch.log_softmax(logits[start - 1 : -1].double(), -1)
    return chosen[torch.arange(len(chosen)), ids[0, start:]].tolist()


def test_fisher_is_the_mean_square_of_single_gradients_and_the_penalty_its_quadratic_form(
    model: Path, tmp_path: Path
) -> None:
    data = examples(4)
    run = trainer(model, settings(), data, tmp_path)
    collate, network = run.data_collator, run.instruction_model
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)

    def loss(index: int) -> torch.Tensor:
        return network(**collate([data[index]])).next_token.sum()

    fisher = fisher_information(network, [lambda i=i: loss(i) for i in range(4)])
    name = next(n for n in fisher if "lora_B" in n)
    parameter = dict(network.named_parameters())[name]
    expected = torch.stack([torch.autograd.grad(loss(i), parameter)[0].double() ** 2 for i in range(4)]).mean(0)
    assert torch.allclose(fisher[name].double(), expected, rtol=1e-4)
    save_fisher(tmp_path / "fisher.safetensors", network, fisher)
    ewc = EwcSettings(weight=3.0, fisher=tmp_path / "fisher.safetensors")
    second = trainer(model, settings(losses=LossSettings(ewc=ewc)), data, tmp_path / "second")
    penalty = second._penalty
    assert penalty is not None
    penalty().backward()
    anchor = penalty.anchor
    for key, moved in trainable(second.instruction_model).items():
        gradient = 3.0 * fisher[key] * (moved.detach() - anchor[key])
        assert moved.grad is not None and torch.allclose(moved.grad, gradient, atol=1e-7)
