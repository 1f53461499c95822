"""The trainer: exact normalisation, resuming, and one code path with serving."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.adapter import AdapterReply
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.reader import read_adapter
from ift_training import checkpoint
from ift_training.losses.ewc import fisher_information, save_fisher, trainable
from ift_training.settings import EwcSettings, LoraSettings, LossSettings, MaskingSettings
from tests.support.adapters import EVERYTHING
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
    losses = LossSettings(instruction=0.5, representation=0.1, task_weights={"second": 2.0})
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


@pytest.mark.parametrize("begun", [3, 4], ids=["between epochs", "within one"])
def test_a_resumed_run_ends_with_the_same_bits(begun: int, model: Path, tmp_path: Path) -> None:
    data = examples(12)
    chosen = settings(
        max_steps=7,
        save_steps=begun,
        batch_size=2,
        accumulation=2,
        schedule="cosine",
        learning_rate=1e-3,
        lora=LoraSettings(rank=4, dropout=0.2),
        masking=MaskingSettings(rate=0.3),
        losses=LossSettings(instruction=0.5, representation=0.1, task_weights="learned"),
    )
    whole = trainer(model, chosen, data, tmp_path / "whole")
    whole.train()
    resumed = trainer(model, chosen, data, tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / f"whole/checkpoint-{begun}"))
    first, second = (checkpoint.gather(run.instruction_model) for run in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert set(first) >= {"components.attention_bias.heads", "balance.log_variances", "projection.linear.weight"}
    moments = [
        {
            name: state["exp_avg_sq"]
            for name, parameter in trainable(run.model).items()
            if (state := run.optimizer.state[parameter])
        }
        for run in (whole, resumed)
    ]
    assert set(moments[0]) == set(moments[1]) and "components.two_stream.up.weight" in moments[0]
    assert all(torch.equal(moments[0][name], moments[1][name]) for name in moments[0])


def test_a_checkpoint_holds_an_adapter_and_no_pickled_weights(model: Path, tmp_path: Path) -> None:
    trainer(model, settings(save_steps=1), examples(8), tmp_path).train()
    folder = tmp_path / "checkpoint-1"
    assert read_adapter(folder, BaseMetadata.of_directory(model)).components == EVERYTHING
    names = {path.name for path in folder.iterdir()}
    assert {"optimizer.safetensors", "scheduler.json", "training_state.safetensors", "trainer_state.json"} <= names
    # Nothing in a checkpoint is pickled.
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json", ".md"}
    assert all((folder / name).stat().st_mode & 0o044 == 0o044 for name in names if "adapter" in name or "ift" in name)


def test_the_best_weights_come_back_with_their_components(model: Path, tmp_path: Path) -> None:
    chosen = settings(
        max_steps=4,
        save_steps=1,
        learning_rate=3e-3,
        component_learning_rate=0.3,
        losses=LossSettings(instruction=0.5, representation=0.1, task_weights="learned"),
    )
    run = trainer(
        model,
        chosen,
        examples(32),
        tmp_path,
        validation=examples(6, seed=3),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
    )
    run.train()
    losses = {line["step"]: line["eval_loss"] for line in run.state.log_history if "eval_loss" in line}
    best = min(losses, key=lambda step: losses[step])
    assert best != 4, "the last weights are the best: nothing is shown"
    kept = checkpoint.read(run.instruction_model, tmp_path / f"checkpoint-{best}", run.settings)
    last = checkpoint.read(run.instruction_model, tmp_path / "checkpoint-4", run.settings)
    found = checkpoint.gather(run.instruction_model)
    assert set(kept) == set(found)
    assert all(torch.equal(found[name], kept[name]) for name in found)
    assert not torch.equal(found["components.attention_gain.weight"], last["components.attention_gain.weight"])
    assert run.evaluate()["eval_loss"] == pytest.approx(losses[best], rel=1e-6)


def test_validation_is_one_mean_over_all_targets_with_nothing_hidden(model: Path, tmp_path: Path) -> None:
    held, found = examples(7, seed=4), []
    for batch, rate in ((2, 0.0), (7, 0.9)):
        chosen = settings(masking=MaskingSettings(rate=rate), losses=LossSettings(instruction=0.5, representation=0.1))
        run = trainer(model, chosen, examples(8), tmp_path, validation=held, per_device_eval_batch_size=batch)
        torch.manual_seed(0)
        found.append({key: value for key, value in run.evaluate().items() if key.startswith("eval_loss")})
        drawn = torch.rand(1)
        torch.manual_seed(0)
        assert torch.equal(drawn, torch.rand(1)), "an evaluation changes what training draws"
    assert set(found[0]) == {"eval_loss", *(f"eval_loss_{p}" for p in ("next_token", "instruction", "representation"))}
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_parts_of_the_loss_add_up_to_what_is_logged(model: Path, tmp_path: Path) -> None:
    run = trainer(model, settings(batch_size=2, accumulation=4, max_steps=3), examples(24), tmp_path)
    run.train()
    for line in run.state.log_history[:3]:
        parts = [line[f"loss_{name}"] for name in ("next_token", "instruction", "representation")]
        assert sum(parts) == pytest.approx(line["loss"], rel=1e-4)


LORA: dict[str, dict[str, Any]] = {
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "ranks": {"rank_pattern": {"q_proj": 8, "layers.1.mlp.down_proj": 2}, "alpha_pattern": {"v_proj": 3.0}},
    "targets": {"targets": ["q_proj", "v_proj"]},
}


@pytest.mark.parametrize("kind", LORA)
def test_kinds_of_low_rank_parts_are_trained_saved_and_read_again(kind: str, model: Path, tmp_path: Path) -> None:
    chosen = settings(lora=LoraSettings(rank=4, **LORA[kind]), max_steps=2, save_steps=1)
    whole = trainer(model, chosen, examples(16), tmp_path / "whole")
    whole.train()
    resumed = trainer(model, chosen, examples(16), tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-1"))
    first, second = (checkpoint.gather(run.instruction_model) for run in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    read = read_adapter(tmp_path / "whole/checkpoint-2", BaseMetadata.of_directory(model)).lora
    query = read["model.layers.0.self_attn.q_proj"]
    assert query.a.shape[0] == (8 if kind == "ranks" else 4)
    assert query.scale == pytest.approx({"rslora": 32 / 4**0.5, "ranks": 32 / 8}.get(kind, 8.0))
    assert (query.magnitude is not None) == (kind == "dora")
    assert len(read) == (4 if kind == "targets" else 14)


def test_components_are_trained_without_a_low_rank_part(model: Path, tmp_path: Path) -> None:
    run = trainer(model, settings(lora=LoraSettings(rank=0), save_steps=1), examples(8), tmp_path)
    run.train()
    read = read_adapter(tmp_path / "checkpoint-1", BaseMetadata.of_directory(model))
    assert not read.lora and read.components == EVERYTHING
    assert read.extras["attention_gain.weight"].abs().max() > 0


def test_four_bits_are_refused_where_they_do_not_run(model: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("they may run here")
    with pytest.raises(ValueError, match="load_in_4bit"):
        trainer(model, settings(load_in_4bit=True), examples(2), tmp_path)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2"])
def test_a_trained_example_is_computed_the_same_alone_as_in_a_padded_batch(architecture: str, tmp_path: Path) -> None:
    path = build(architecture, tmp_path / "base")
    tiny_tokenizer().save_pretrained(path)
    data = examples(8, vocabulary=150)
    run = trainer(path, settings(learning_rate=1e-2, component_learning_rate=1e-2), data, tmp_path / "run")
    run.train()
    batch = run.evaluation_collator([*data])
    together = _log_probs(run, batch)
    for index, example in enumerate(data):
        alone = _log_probs(run, run.evaluation_collator([example]))
        length = len(example.input_ids)
        assert torch.allclose(together[index, :length], alone[0, :length], atol=1e-5)


def _log_probs(run: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """``[B, L, V]`` float64."""
    model = run.instruction_model.eval()
    tokens = model.tokens(batch["input_ids"], batch["segments"], batch["sequence"], len(batch["tasks"]))
    with torch.no_grad():
        hidden, _ = model.hidden_states(batch["input_ids"], batch["positions"], batch["sequence"], tokens)
        return torch.log_softmax(model.logits(hidden).double(), -1).view(*batch["input_ids"].shape, -1)


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
    driver = Driver(EngineCore(runner, config, STRATEGIES, adapter_tensors=runner.adapters))
    reply = driver.load("trained", str(tmp_path / "adapter"))
    assert isinstance(reply, AdapterReply), reply
    start = data[0].response_start
    driver.add(
        ScoreRequest(
            request_id="s",
            token_ids=data[0].input_ids[:start],
            continuations=[data[0].input_ids[start:]],
            segment_ids=data[0].segment_ids[:start],
            adapter="trained",
        )
    )
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
        taken: torch.Tensor = network(**collate([data[index]])).next_token
        return taken.sum()

    fisher = fisher_information(network, [partial(loss, i) for i in range(4)])
    name = next(n for n in fisher if "lora_B" in n)
    parameter = dict(network.named_parameters())[name]
    expected = torch.stack([torch.autograd.grad(loss(i), parameter)[0].double() ** 2 for i in range(4)]).mean(0)
    assert torch.allclose(fisher[name].double(), expected, rtol=1e-4)
    save_fisher(tmp_path / "fisher.safetensors", network, fisher)
    ewc = EwcSettings(weight=3.0, fisher=tmp_path / "fisher.safetensors")
    second = trainer(model, settings(losses=LossSettings(ewc=ewc)), data, tmp_path / "second")
    penalty = second._penalty
    assert penalty is not None
    anchor, moving = penalty.anchor, trainable(second.instruction_model)
    assert all(torch.equal(moving[key].detach(), anchor[key]) for key in anchor), "training begins at the anchor"
    with torch.no_grad():
        for moved in moving.values():
            moved.add_(torch.randn_like(moved))
    penalty(moving).backward()
    for key, moved in moving.items():
        gradient = 3.0 * fisher[key] * (moved.detach() - anchor[key])
        assert moved.grad is not None and torch.allclose(moved.grad, gradient, rtol=1e-5, atol=1e-7)


def test_without_weight_a_fisher_file_still_says_where_to_begin(model: Path, tmp_path: Path) -> None:
    before = trainer(model, settings(), examples(8), tmp_path / "before").instruction_model
    with torch.no_grad():
        for parameter in trainable(before).values():
            parameter.add_(0.01)
    save_fisher(tmp_path / "f.safetensors", before, {name: torch.ones_like(p) for name, p in trainable(before).items()})
    ewc = EwcSettings(weight=0.0, fisher=tmp_path / "f.safetensors")
    run = trainer(model, settings(losses=LossSettings(ewc=ewc)), examples(8), tmp_path / "run")
    found, expected = checkpoint.gather(run.instruction_model), checkpoint.gather(before)
    # The projection serves one training only, so the next begins with its own.
    assert set(expected) - set(found) == {"projection.linear.weight", "projection.linear.bias"}
    assert all(torch.equal(found[name], expected[name]) for name in found)
    run.train()
    assert "loss_ewc" not in run.state.log_history[0]
