"""Two processes train what one trains: replicated (DDP) and sharded (FSDP2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.reader import read_adapter
from ift_training.losses.ewc import save_fisher, trainable
from ift_training.settings import EwcSettings, LossSettings, MaskingSettings, TrainerSettings
from ift_training.trainer import InstructionTrainer
from tests.support import two_processes
from tests.support.forked import run_forked
from tests.support.models import tiny_llama
from tests.support.training import examples, grad_norm, settings, trainer

FILES = ("adapter_model.safetensors", "ift_extras.safetensors", "training_state.safetensors")
OPTIONS = {
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_strategy": "steps",
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "greater_is_better": False,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def fisher(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fisher information of a task that ended away from where adapters begin."""
    folder = tmp_path_factory.mktemp("fisher")
    before = trainer(model, _settings(None, 8), examples(8), folder).instruction_model
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in trainable(before).values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    save_fisher(folder / "fisher.safetensors", before, {n: torch.rand_like(p) for n, p in trainable(before).items()})
    return folder / "fisher.safetensors"


def _settings(fisher: Path | None, batch: int) -> TrainerSettings:
    ewc = EwcSettings() if fisher is None else EwcSettings(weight=1e4, fisher=fisher)
    return settings(
        batch_size=batch,
        max_steps=3,
        save_steps=1,
        learning_rate=1e-3,
        masking=MaskingSettings(rate=0.3),
        losses=LossSettings(instruction=0.5, representation=0.1, task_weights="learned", ewc=ewc),
        accumulation=2,
    )


@pytest.fixture(scope="module")
def outputs(model: Path, fisher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process and two processes made of the same eight examples a step."""
    folder = tmp_path_factory.mktemp("outputs")
    path = folder / "plan.json"
    plan = {"settings": _settings(fisher, 2).model_dump(mode="json"), "model": str(model), "examples": 24}
    plan["options"] = OPTIONS
    path.write_text(json.dumps({**plan, "store": str(folder / "store"), "output": str(folder)}))
    codes = run_forked(two_processes.main, [(path, rank) for rank in (0, 1)], folder)
    assert codes == [0, 0], "\n".join(error.read_text()[-3000:] for error in folder.glob("*.txt"))
    return folder


@pytest.fixture(scope="module")
def one(model: Path, fisher: Path, tmp_path_factory: pytest.TempPathFactory) -> InstructionTrainer:
    """The same training on one process."""
    output, held = tmp_path_factory.mktemp("one"), examples(5, seed=9)
    found = trainer(model, _settings(fisher, 4), examples(24), output, validation=held, **OPTIONS)
    found.train()
    found.save_model(str(output / "end"))
    return found


@pytest.fixture(params=["replicated", "sharded"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def report(kind: str, outputs: Path) -> dict[str, Any]:
    """What the processes saw, which is the same on both."""
    first, second = (json.loads((outputs / f"plan.{rank}").read_text())[kind] for rank in (0, 1))
    assert first["grad_norms"] == second["grad_norms"]
    return dict(first)


def test_layers_are_sharded_when_asked(report: dict[str, Any], kind: str) -> None:
    assert report["sharded"] == (kind == "sharded")


def test_every_part_of_the_loss_and_the_gradient_are_those_of_one_process(
    report: dict[str, Any], one: InstructionTrainer
) -> None:
    assert report["grad_norms"][0] == pytest.approx(grad_norm(one), rel=1e-5)
    alone = one.state.log_history[0]
    assert set(report["parts"]) == {"loss", "loss_next_token", "loss_instruction", "loss_representation", "loss_ewc"}
    assert report["parts"] == pytest.approx({key: alone[key] for key in report["parts"]}, rel=1e-4)


def test_the_penalty_for_forgetting_and_its_gradient_are_those_of_one_process(
    report: dict[str, Any], one: InstructionTrainer
) -> None:
    lines = [line for line in one.state.log_history if "loss_ewc" in line]
    # It is zero at the beginning, which is where the previous task ended; later it is most of the gradient.
    assert report["ewc"][0] == 0 < report["ewc"][1]
    assert report["ewc"] == pytest.approx([line["loss_ewc"] for line in lines], rel=1e-3, abs=2e-6)
    assert report["grad_norms"] == pytest.approx([line["grad_norm"] for line in lines], rel=1e-3)


def test_validation_counts_each_example_once_though_five_do_not_divide_by_two(
    report: dict[str, Any], one: InstructionTrainer
) -> None:
    alone = one.state.log_history[1]
    assert report["evaluated"] == pytest.approx({key: alone[key] for key in report["evaluated"]}, rel=1e-4)


def test_a_resumed_run_ends_with_the_same_bits(kind: str, outputs: Path) -> None:
    for name in (*FILES, "optimizer.safetensors"):
        whole, resumed = (load_file(outputs / kind / folder / "checkpoint-3" / name) for folder in (".", "again"))
        assert set(whole) == set(resumed)
        assert all(torch.equal(whole[key], resumed[key]) for key in whole), name


def _decided(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """What gradients decide of a tensor.

    The bias of an attention's keys adds the same to all scores of a query, so its gradient is 0 but for rounding, and
    Adam makes whole steps of that.
    """
    if not key.endswith("qkv.bias"):
        return tensor
    queries, _, values = tensor.chunk(3)
    return torch.cat((queries, values))


def test_the_trained_adapter_is_that_of_one_process(kind: str, outputs: Path, one: InstructionTrainer) -> None:
    for name in FILES:
        mine = load_file(Path(one.args.output_dir) / "checkpoint-3" / name)
        theirs = load_file(outputs / kind / "checkpoint-3" / name)
        assert set(mine) == set(theirs)
        for key in mine:
            ours, others = _decided(key, mine[key]), _decided(key, theirs[key])
            assert torch.allclose(ours, others, atol=2e-4), f"{name}: {key}"


def test_the_best_weights_come_back(report: dict[str, Any], kind: str, outputs: Path, one: InstructionTrainer) -> None:
    assert report["best"] == one.state.best_global_step != 3
    for name in FILES:
        kept, last, end = (
            load_file(outputs / kind / folder / name)
            for folder in (f"checkpoint-{report['best']}", "checkpoint-3", "end")
        )
        assert all(torch.equal(kept[key], end[key]) for key in kept), name
        assert any(not torch.equal(kept[key], last[key]) for key in kept), name


def test_what_one_process_writes_alone_at_the_end_is_a_whole_adapter(kind: str, outputs: Path, model: Path) -> None:
    metadata = BaseMetadata.of_directory(model)
    written, saved = (read_adapter(outputs / kind / folder, metadata) for folder in ("written", "end"))
    assert all(torch.equal(written.extras[key], saved.extras[key]) for key in saved.extras)
    assert all(torch.equal(written.lora[key].b, saved.lora[key].b) for key in saved.lora)


def test_one_process_goes_on_from_a_checkpoint_of_two(
    kind: str, outputs: Path, model: Path, fisher: Path, one: InstructionTrainer, tmp_path: Path
) -> None:
    resumed = trainer(model, _settings(fisher, 4), examples(24), tmp_path)
    resumed.train(resume_from_checkpoint=str(outputs / kind / "checkpoint-1"))
    norms = [line["grad_norm"] for line in one.state.log_history if "grad_norm" in line]
    found = [line["grad_norm"] for line in resumed.state.log_history if "grad_norm" in line]
    assert found[-2:] == pytest.approx(norms[-2:], rel=1e-3)
