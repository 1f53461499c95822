"""Which weights are written, and that every number told of them is theirs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer

from ift_serve.checks import judge_all
from ift_training.data.sources import ProceduralSource
from ift_training.evaluation.best import BestWeights
from ift_training.losses.next_token import IGNORED
from ift_training.prepare import RUN_FOLDER, open_encoder, prepare_recipe
from ift_training.recipe import Recipe
from ift_training.reporting.curves import series
from ift_training.run import train
from tests.support.recipes import small_recipe

pytestmark = pytest.mark.usefixtures("no_picture")


def recipe(model: Path, output: Path, evaluation: dict[str, Any], trainer: dict[str, Any]) -> Recipe:
    return Recipe.parse(
        small_recipe(model, output, evaluation={"samples": 0, **evaluation}, trainer={"max_steps": 6, **trainer})
    )


def loss_of_written(chosen: Recipe) -> float:
    """The validation loss a token, by PEFT and transformers alone."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(chosen.base), str(chosen.output)).eval()
    validation = prepare_recipe(chosen, open_encoder(chosen)).validation
    total, count = 0.0, 0
    for index in range(len(validation)):
        example = validation[index]
        ids = torch.tensor([example.input_ids])
        labels = torch.where(torch.tensor([list(example.labels_mask)]).bool(), ids, IGNORED)
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].double()
        total += float(torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=IGNORED, reduction="sum"))
        count += int((labels[0, 1:] != IGNORED).sum())
    return total / count


def score_of_written(chosen: Recipe) -> dict[str, float]:
    """The share of right answers by family, by PEFT's and transformers' greedy answers and the families' checks."""
    model: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(chosen.base_directory(), dtype=torch.float32), str(chosen.output)
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(chosen.base_directory())
    (source,) = chosen.sources
    passed: dict[str, list[bool]] = {}
    held = ProceduralSource(source, chosen.seed + 1, split="validation", count=source.count)
    for index in range(chosen.evaluation.examples * len(source.task_names)):
        record, task = held.record(index)
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": record.prompt[-1].content}], add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        found = model.generate(
            input_ids=ids,
            do_sample=False,
            max_new_tokens=chosen.evaluation.max_new_tokens,
            attention_mask=torch.ones_like(ids),
        )
        answer = tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)
        passed.setdefault(task, []).append(bool(judge_all(record.checks, answer)))
    return {task: sum(right) / len(right) for task, right in passed.items()}


def test_the_best_score_told_is_that_of_the_written_adapter(tmp_path: Path) -> None:
    chosen = Recipe.parse(
        {
            "base": "ift-tiny",
            "output": str(tmp_path / "out"),
            "max_length": 256,
            "name": "tiny",
            "sources": [{"procedural": ["table", "extract", "list_items"], "count": 60}],
            "validation": {"share": 0.1},
            "evaluation": {"every": 1, "examples": 6, "max_new_tokens": 40, "samples": 0},
            "trainer": {"batch_size": 4, "max_steps": 4, "learning_rate": 3e-2, "schedule": "constant", "lora": {}},
        }
    )
    report = train(chosen, progress=False)
    truth = score_of_written(chosen)
    assert report.after == pytest.approx(truth)
    assert json.loads((chosen.output / "ift_config.json").read_text())["scores"]["after"] == pytest.approx(truth)
    found = json.loads((chosen.output / RUN_FOLDER / "report.json").read_text())
    by_step = dict(series(found["history"])["eval_score"])
    mean = sum(truth.values()) / len(truth)
    assert by_step[found["written_step"]] == pytest.approx(mean)
    assert max(by_step[step] for step in range(1, 5)) == pytest.approx(mean)
    assert len({round(score, 6) for score in by_step.values()}) > 2, "one score for all weights would show nothing"
    for task, share in truth.items():
        assert (
            f"| {task} | {100 * report.before[task]:.1f} | {100 * share:.1f} |"
            in (chosen.output / "README.md").read_text()
        )


def check_numbers(chosen: Recipe) -> dict[str, Any]:
    """Report, configuration, card, log and TensorBoard tell the loss of what is written. Returns the report."""
    truth = loss_of_written(chosen)
    folder = chosen.output / RUN_FOLDER
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    scores = json.loads((chosen.output / "ift_config.json").read_text())["scores"]
    assert found["losses"]["eval_loss"] == pytest.approx(truth, rel=1e-4)
    assert scores["eval_loss"] == pytest.approx(truth, rel=1e-4)
    assert f"eval_loss {found['losses']['eval_loss']:.4f}" in (chosen.output / "README.md").read_text()
    if chosen.evaluation.every:
        logged = dict(series(found["history"])["eval_loss"])
        assert logged[found["written_step"]] == pytest.approx(truth, rel=1e-4)
        score = dict(series(found["history"])["eval_score"])[found["written_step"]]
        assert score == pytest.approx(sum(scores["after"].values()) / len(scores["after"]))
        board = dict[int, float]()
        for run in sorted((folder / "runs").iterdir()):
            events = EventAccumulator(str(run))
            events.Reload()
            board |= {event.step: event.value for event in events.Scalars("eval/loss")}
        assert board[found["written_step"]] == pytest.approx(truth, rel=1e-4)
    return found


@pytest.mark.parametrize(
    ("evaluation", "trainer"),
    [
        ({"every": 2}, {"save_steps": 4}),
        ({"every": 2}, {"save_steps": 3}),
        ({"every": 4}, {}),
        ({"every": 2, "best": "loss"}, {"save_steps": 5, "learning_rate": 0.3, "schedule": "constant"}),
        ({"every": 1, "best": "loss", "patience": 2}, {"max_steps": 20, "learning_rate": 5.0, "schedule": "constant"}),
        ({"every": 1, "best": "last", "patience": 2}, {"max_steps": 20, "learning_rate": 5.0, "schedule": "constant"}),
        ({"every": 0}, {}),
    ],
)
def test_every_number_is_that_of_the_weights_written(
    base: Path, tmp_path: Path, evaluation: dict[str, Any], trainer: dict[str, Any]
) -> None:
    chosen = recipe(base, tmp_path / "out", evaluation, trainer)
    train(chosen, progress=False)
    found = check_numbers(chosen)
    if chosen.evaluation.every and chosen.evaluation.best != "last":
        scores, losses = (dict(series(found["history"])[name]) for name in ("eval_score", "eval_loss"))
        by_score = chosen.evaluation.best == "score"
        steps = [step for step in losses if step]
        assert found["best_step"] == max(steps, key=lambda step: (scores[step] if by_score else 0, -losses[step]))
    assert found["losses_before"]["eval_loss"] > 0


def test_a_resumed_run_tells_of_what_it_writes(base: Path, tmp_path: Path) -> None:
    chosen = recipe(base, tmp_path / "out", {"every": 2}, {"save_steps": 3})
    train(chosen, progress=False)
    (chosen.output / "adapter_model.safetensors").unlink()
    folder = chosen.output / RUN_FOLDER
    (folder / "report.json").unlink()
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.rmtree(last)
    train(chosen, resume=True, progress=False)
    check_numbers(chosen)


@pytest.mark.parametrize("lost", [False, True], ids=["moved", "the best is lost"])
def test_a_run_that_is_moved_or_has_lost_its_best_goes_on(base: Path, tmp_path: Path, lost: bool) -> None:
    rate = {"learning_rate": 5.0, "schedule": "constant", "warmup": 0}
    before = recipe(base, tmp_path / "first", {"every": 1, "best": "loss"}, {"max_steps": 3, **rate})
    best = train(before, progress=False).best_step
    shutil.move(before.output, tmp_path / "second")
    folder = tmp_path / "second" / RUN_FOLDER
    if lost:
        assert best in (1, 2)
        shutil.rmtree(folder / f"checkpoint-{best}")
    chosen = recipe(base, tmp_path / "second", {"every": 1, "best": "loss"}, {"max_steps": 5, **rate})
    train(chosen, resume=True, progress=False)
    found = check_numbers(chosen)
    losses = dict(series(found["history"])["eval_loss"])
    among = [step for step in losses if step > (3 if lost else 0)]
    assert found["best_step"] == min(among, key=lambda step: losses[step])


def test_losses_and_learned_weights_of_tasks_are_logged(base: Path, tmp_path: Path) -> None:
    chosen = recipe(base, tmp_path / "out", {}, {"losses": {"task_weights": "learned"}})
    report = train(chosen, progress=False)
    logged = series(json.loads((chosen.output / RUN_FOLDER / "report.json").read_text())["history"])
    for task in ("frame", "repeat"):
        for name in (f"task_loss_{task}", f"eval_task_loss_{task}", f"task_weight_{task}"):
            assert name in logged and name in report.losses


def test_a_training_that_gains_nothing_says_so(base: Path, tmp_path: Path) -> None:
    chosen = recipe(base, tmp_path / "out", {"best": "last"}, {"learning_rate": 1e-9})
    report = train(chosen, progress=False)
    assert report.no_gain is not None
    assert report.no_gain in (chosen.output / "README.md").read_text()


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.4, 0.7, float("nan")])), max_size=8))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_ties_of_the_score_go_to_the_lower_loss_then_to_the_earlier_step(found: list[tuple[float, float]]) -> None:
    best = BestWeights(by_score=True)
    for step, (score, loss) in enumerate(found, 1):
        best.consider({"eval_score": score, "eval_loss": loss}, step)
    right = [(-score, loss, step) for step, (score, loss) in enumerate(found, 1) if loss == loss]
    assert best.step == (min(right)[2] if right else None)
    again = BestWeights(by_score=True)
    again.replay({"step": step, "eval_score": s, "eval_loss": x} for step, (s, x) in enumerate(found, 1))
    assert (again.step, again.waited) == (best.step, best.waited)
