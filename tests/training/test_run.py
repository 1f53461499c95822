"""Training runs: scores that mean something, best weights, resuming, files, memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer

from ift_serve.embedded import model_path
from ift_serve.modeling.components.config import BaseShape, ComponentsConfig
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.decoder.attention import register_attention
from ift_serve.modeling.decoder.hooks import attach
from ift_serve.modeling.decoder.model_loader import UnsupportedModelError, load_model
from ift_serve.text.prompt import PromptRenderer
from ift_serve.text.tokenizer import load_tokenizer
from ift_training.data.procedural import families
from ift_training.evaluation.answers import greedy
from ift_training.fisher import write_fisher
from ift_training.prepare import RUN_FOLDER
from ift_training.pretrain.evaluate import held_out, transformers_answers
from ift_training.recipe import Recipe, RecipeError
from ift_training.reporting.curves import series
from ift_training.reporting.summary import TrainingReport
from ift_training.run import train
from ift_training.saved import incomplete
from tests.support.recipes import small_recipe

pytestmark = pytest.mark.usefixtures("no_picture")


def recipe(model: Path, output: Path, **other: Any) -> Recipe:
    found = small_recipe(model, output)
    for path, value in other.items():
        part, _, name = path.partition("__")
        if name:
            found[part] = {**found[part], name: value}
        else:
            found[part] = value
    return Recipe.parse(found)


FINISHED: dict[str, Any] = {"evaluation__best": "last", "trainer__lora": {"rank": 4}}


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingReport:
    """Of a run with the settings above, whose files tests copy."""
    return train(recipe(base, tmp_path_factory.mktemp("finished") / "out", **FINISHED), progress=False)


@pytest.fixture(scope="module")
def fisher(base: Path, finished: TrainingReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fisher information of that run."""
    assert finished.output is not None
    path = tmp_path_factory.mktemp("fisher") / "fisher.safetensors"
    found = write_fisher(recipe(base, finished.output, **FINISHED), path, examples=3, progress=False)
    assert found["examples"] == 3
    assert found["parameters"] == sum(t.numel() for n, t in load_file(path).items() if n.startswith("fisher."))
    return path


@pytest.fixture
def copied(finished: TrainingReport, tmp_path: Path) -> Path:
    """A copy of the finished run's files."""
    assert finished.output is not None
    return Path(shutil.copytree(finished.output, tmp_path / "out"))


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "adapter_model.safetensors")


def test_a_run_leaves_an_adapter_with_its_card_curves_and_report(base: Path, finished: TrainingReport) -> None:
    report, out = finished, finished.output
    assert out is not None
    assert report.steps == 4 and set(report.before) == set(report.after) == {"frame", "repeat"}
    config = json.loads((out / "ift_config.json").read_text())
    assert {name.partition(":")[0] for name in config["recipe"]["trained_on"]} >= {"family", "check"}
    assert config["recipe"]["trainer"]["max_steps"] == 4 and config["scores"]["after"] == report.after
    card = (out / "README.md").read_text()
    assert "| frame |" in card and "## Some answers" in card
    assert (out / RUN_FOLDER / "curves.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((out / RUN_FOLDER / "report.json").read_text())
    assert found["steps"] == 4 and found["data"]["validation"] == 6
    assert {"eval_loss", "eval_score", "eval_score_frame"} <= set(series(found["history"]))
    assert all(entry.stat().st_mode & 0o044 == 0o044 for entry in out.iterdir() if entry.is_file())
    events = EventAccumulator(str(next((out / RUN_FOLDER / "runs").iterdir())))
    events.Reload()
    assert {"eval/loss", "eval/score", "eval/score_frame"} <= set(events.Tags()["scalars"])
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(out))
    assert torch.isfinite(merged(torch.tensor([[1, 5, 9]])).logits).all()


def test_the_recipe_that_an_adapter_keeps_trains_it_again(finished: TrainingReport, tmp_path: Path) -> None:
    assert finished.output is not None
    kept = Recipe.load(finished.output / "ift_config.json", [f"output={tmp_path / 'again'}"])
    again = train(kept, progress=False)
    assert again.output is not None
    before, after = weights(finished.output), weights(again.output)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_everything_that_a_recipe_can_turn_on_works_together(base: Path, tmp_path: Path) -> None:
    whole = recipe(
        base,
        tmp_path / "out",
        trainer__packing=True,
        trainer__masking={"rate": 0.2, "mode": "drop"},
        trainer__losses={"instruction": 0.5, "representation": 0.1, "task_weights": "learned"},
        trainer__components={
            "segment_embedding": True,
            "instruction_embedding": 2,
            "instruction_encoder": 8,
            "two_stream": 4,
            "attention_bias": True,
            "attention_gain": True,
            "instruction_gate": 2,
            "reasoning_pathways": 6,
            "temperature_head": 4,
            "adherence_head": 4,
        },
    )
    report = train(whole, progress=False)
    assert {"loss_next_token", "loss_instruction", "loss_representation"} <= set(report.losses)
    assert all(value == value for value in report.losses.values())
    assert set(report.after) == {"frame", "repeat"}
    written = weights(tmp_path / "out"), load_file(tmp_path / "out" / "ift_extras.safetensors")
    assert report.trained_parameters == sum(t.numel() for tensors in written for t in tensors.values())


def test_a_run_goes_on_from_the_last_checkpoint_that_is_whole(base: Path, copied: Path) -> None:
    chosen = recipe(base, copied, **FINISHED)
    written = weights(copied)
    with pytest.raises(RecipeError, match="finished after 4 steps"):
        train(chosen, resume=True, progress=False)
    assert all(torch.equal(tensor, written[name]) for name, tensor in weights(copied).items())
    last = copied / RUN_FOLDER / "checkpoint-4"
    (copied / "adapter_model.safetensors").unlink()
    for name in ("trainer_state.json", "optimizer.safetensors", "scheduler.json", "random-0.safetensors"):
        content = (last / name).read_bytes()
        (last / name).write_bytes(content[: len(content) // 2])
        if name.startswith("random"):
            (last / name).unlink()
        assert incomplete(last) is not None
        (last / name).write_bytes(content)
        assert incomplete(last) is None
    (last / "trainer_state.json").unlink()
    train(chosen, resume=True, progress=False)
    assert all(torch.equal(tensor, written[name]) for name, tensor in weights(copied).items())


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"trainer__lora": {"rank": 2}}, "trainer.lora.rank"),
        ({"trainer__lora": {"rank": 4, "alpha": 99}}, "trainer.lora.alpha"),
        ({"trainer__lora": {"rank": 4, "targets": ["q_proj"]}}, "trainer.lora.targets"),
        ({"trainer__components": {"segment_embedding": True}}, "trainer.components"),
    ],
)
def test_weights_of_other_settings_are_refused_by_the_field(
    base: Path, copied: Path, fisher: Path, tmp_path: Path, other: dict[str, Any], field: str
) -> None:
    changed = {**FINISHED, **other, "trainer__max_steps": 50}
    with pytest.raises(RecipeError, match=rf"--resume: {field}"):
        train(recipe(base, copied, **changed), resume=True, progress=False)
    with pytest.raises(RecipeError, match=field):
        write_fisher(recipe(base, copied, **changed), tmp_path / "f.safetensors", examples=2, progress=False)
    losses = {"ewc": {"weight": 1.0, "fisher": str(fisher)}}
    with pytest.raises(RecipeError, match=rf"losses.ewc.fisher: .*{field}"):
        train(recipe(base, tmp_path / "next", **changed, trainer__losses=losses), progress=False)


def test_a_run_that_diverges_writes_nothing_over_what_was_good(base: Path, copied: Path) -> None:
    before = weights(copied)
    wild = recipe(
        base,
        copied,
        evaluation__every=0,
        trainer__learning_rate=1e30,
        trainer__max_grad_norm=0.0,
        trainer__warmup=0.0,
    )
    with pytest.raises(RecipeError, match="the training diverged"):
        train(wild, progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(copied).items())


def test_the_best_weights_are_kept_and_a_run_that_gets_worse_stops(base: Path, tmp_path: Path) -> None:
    hopeless = recipe(
        base,
        tmp_path / "out",
        evaluation__best="loss",
        evaluation__patience=1,
        evaluation__every=1,
        trainer__learning_rate=5.0,
        trainer__max_steps=30,
        trainer__schedule="constant",
        trainer__warmup=0.0,
    )
    report = train(hopeless, progress=False)
    assert report.stopped_early and report.steps < 30
    assert report.best_step is not None and report.best_step < report.steps
    kept = weights(tmp_path / "out" / RUN_FOLDER / f"checkpoint-{report.best_step}")
    written = weights(tmp_path / "out")
    assert all(torch.equal(kept[name], written[name]) for name in kept)


def test_nothing_is_trained_in_a_dry_run(base: Path, tmp_path: Path) -> None:
    report = train(recipe(base, tmp_path / "out"), dry_run=True, progress=False)
    assert not (tmp_path / "out").exists()
    assert report.data.examples == 24 and report.memory.total > 0 and report.memory.fits


def test_other_files_are_not_written_over(base: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(RecipeError, match=r"output: .* holds other files"):
        train(recipe(base, tmp_path), progress=False)
    with pytest.raises(RecipeError, match="holds no checkpoint"):
        train(recipe(base, tmp_path), resume=True, progress=False)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"base": "no/such-model"}, "base: "),
        ({"trainer__lora": {"rank": 4, "targets": ["nowhere"]}}, "trainer.lora.targets: .*nowhere"),
    ],
)
def test_what_only_the_model_knows_is_named_too(base: Path, tmp_path: Path, other: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        train(recipe(base, tmp_path / "out", **other), progress=False)


def _cut(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-100])


def _without_a_norm(weights: Path) -> None:
    tensors = load_file(weights)
    del tensors["model.norm.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})


def _pickled(weights: Path) -> None:
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()


@pytest.mark.parametrize(
    ("damage", "said", "dry_run"),
    [
        (_cut, r"model\.safetensors is cut off: .* download it again", True),
        (lambda weights: weights.write_text("version https://git-lfs"), ".*is a Git LFS pointer", True),
        (_pickled, "its weights are pickled .*never read", True),
        (lambda weights: weights.unlink(), "the directory has no weights", True),
        (_without_a_norm, r"1 tensors of LlamaForCausalLM are not in the weights .*model\.norm\.weight", False),
    ],
    ids=["cut", "pointer", "pickled", "none", "lacking"],
)
def test_a_base_that_is_not_whole_is_refused_as_the_server_refuses_it(
    base: Path, tmp_path: Path, damage: Callable[[Path], object], said: str, dry_run: bool
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    damage(broken / "model.safetensors")
    with pytest.raises(RecipeError, match=f"base: {broken}: {said}"):
        train(recipe(broken, tmp_path / "out"), dry_run=dry_run, progress=False)
    with pytest.raises(UnsupportedModelError, match=said):
        load_model(str(broken))


def test_fisher_information_is_of_the_trained_adapter(base: Path, fisher: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="train it first"):
        write_fisher(recipe(base, tmp_path / "none"), tmp_path / "fisher.safetensors", examples=3, progress=False)
    found = {name: t for name, t in load_file(fisher).items() if name.startswith("fisher.")}
    assert all((t >= 0).all() for t in found.values()) and any(t.any() for t in found.values())
    protected = recipe(
        base,
        tmp_path / "next",
        evaluation__every=0,
        trainer__max_steps=1,
        trainer__losses={"ewc": {"weight": 10.0, "fisher": str(fisher)}},
    )
    assert "loss_ewc" in train(protected, progress=False).losses


@pytest.mark.parametrize("adapted", [False, True])
def test_answers_are_those_of_generate(adapted: bool) -> None:
    register_attention()
    path = str(model_path())
    model, plain = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=attention).eval()
        for attention in ("ift", "sdpa")
    )
    components = None
    if adapted:
        attach(model)
        config = model.config
        shape = BaseShape(
            hidden_size=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            vocabulary_size=config.vocab_size,
        )
        components = InstructionComponents(
            ComponentsConfig(
                segment_embedding=True,
                instruction_embedding=4,
                instruction_encoder=16,
                two_stream=8,
                attention_bias=True,
                attention_gain=True,
                instruction_gate=4,
                reasoning_pathways=12,
            ),
            shape,
        )
    examples = [held_out(name, 1, 3)[0] for name in list(families())[::3]]
    renderer = PromptRenderer(load_tokenizer(path))
    prompts = [renderer.instruction(e.instruction, e.context) for e in examples]
    found = greedy(model, components, prompts, frozenset({2}), max_new_tokens=96, batch_size=16)
    expected = transformers_answers(plain, AutoTokenizer.from_pretrained(path))([e.prompt for e in examples])
    assert [renderer.tokenizer.decode(ids) for ids in found] == expected


def test_checkpoints_of_a_run_that_did_not_end_are_not_deleted_unasked(base: Path, copied: Path) -> None:
    chosen = recipe(base, copied, **FINISHED)
    folder = copied / RUN_FOLDER
    # As a process that is killed leaves it: checkpoints, and no report of this run.
    for report in (None, '{"steps": 2}', '{"ste'):
        (folder / "report.json").unlink(missing_ok=True)
        if report is not None:
            (folder / "report.json").write_text(report)
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(RecipeError, match=r"the last of step 4; go on from it with --resume, .* with --overwrite"):
            train(chosen, progress=False)
        assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = recipe(base, copied, **FINISHED, trainer__max_steps=2)
    assert train(other, overwrite=True, progress=False).steps == 2
    assert not (folder / "checkpoint-4").exists()
    assert json.loads((folder / "report.json").read_text())["steps"] == 2
    # Of one that did end nobody is asked.
    assert train(other, progress=False).steps == 2
