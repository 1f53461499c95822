"""A run that is killed while it writes a checkpoint goes on as if nothing had happened."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ift_training.prepare import REPORT, RUN_FOLDER
from tests.support.forked import run_forked
from tests.support.killed_training import train_counting, train_dying, train_on
from tests.support.recipes import small_recipe

STEPS = 6
TIMES = ("_runtime", "_per_second")


def recipe(base: Path, output: Path) -> dict[str, Any]:
    """Three steps an epoch, so that the second epoch's generated examples are not those of the first."""
    return small_recipe(
        base,
        output,
        sources=[{"procedural": ["frame", "repeat"], "count": 12}],
        evaluation={"examples": 1, "max_new_tokens": 2, "samples": 0, "best": "loss"},
        trainer={
            "max_steps": STEPS,
            "save_steps": 1,
            "lora": {"rank": 4, "dropout": 0.2},
            "masking": {"rate": 0.3},
            "losses": {"task_weights": "learned"},
        },
    )


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption, with the numbers of calls within its checkpoints beside it."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_forked(train_counting, [(recipe(base, folder / "out"), folder / "counts.json")], folder) == [0]
    return folder


def told(output: Path) -> dict[str, Any]:
    """What the report says, without how long it took and where."""
    found = json.loads((output / RUN_FOLDER / REPORT).read_text())
    history = [{k: v for k, v in entry.items() if not k.endswith(TIMES)} for entry in found["history"]]
    kept = ("losses", "losses_before", "scores", "best_step", "steps")
    return {
        "history": [entry for entry in history if "total_flos" not in entry],
        **{name: found[name] for name in kept},
    }


@pytest.mark.parametrize("seed", range(2))
def test_after_kill_9_within_a_checkpoint_the_run_ends_at_the_same_bits(
    seed: int, base: Path, whole: Path, tmp_path: Path
) -> None:
    drawn = random.Random(seed)
    step = drawn.randrange(2, STEPS)
    calls = json.loads((whole / "counts.json").read_text())[str(step)]
    again = recipe(base, tmp_path / "out")
    assert run_forked(train_dying, [(again, step, drawn.randrange(calls))], tmp_path) == [-signal.SIGKILL]
    assert not (tmp_path / "out" / RUN_FOLDER / REPORT).exists()
    assert run_forked(train_on, [(again,)], tmp_path) == [0]
    last = f"{RUN_FOLDER}/checkpoint-{STEPS}"
    for name in ("adapter_model.safetensors", f"{last}/adapter_model.safetensors", f"{last}/optimizer.safetensors"):
        expected, found = (load_file(output / "out" / name) for output in (whole, tmp_path))
        assert set(expected) == set(found)
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
    assert told(tmp_path / "out") == told(whole / "out")
