"""Whole runs on a tiny random model, with a reward whose best temperatures are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.reader import read_adapter
from ift_serve.text.prompt import PromptRenderer
from ift_serve.text.tokenizer import load_tokenizer
from ift_training.base_recipe import RecipeError
from ift_training.temperature.frozen_model import FrozenModel
from ift_training.temperature.report import TemperatureReport
from ift_training.temperature.run import train_temperature
from ift_training.temperature.settings import TemperatureRecipe
from tests.support.models import tiny_llama

TOKENS = 2
VERIFIER = """
def worth(instruction, answer, reference):
    "One kind of request wants the most probable beginning, the other any other."
    return float((answer[:1] == reference[:1]) == instruction.startswith("same"))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, records of both kinds with greedy answers as references, and the verifier."""
    root = tmp_path_factory.mktemp("temperature")
    base = tiny_llama(root / "base")
    model, tokenizer = FrozenModel(str(base)), load_tokenizer(str(base))
    renderer = PromptRenderer(tokenizer)
    for kind in ("same", "other"):
        lines = []
        for number in range(28):
            request = f"{kind} {number * 37 % 101}"
            ids = renderer.instruction(request).token_ids
            answer: list[int] = []
            for _ in range(TOKENS):
                (states,) = model.hidden_states([[*ids, *answer]])
                answer.append(int(model.logits(states[-1:]).argmax()))
            text = tokenizer.decode(answer)
            lines.append(json.dumps({"instruction": request, "output": text or "x"}))
        (root / f"{kind}.jsonl").write_text("\n".join(lines) + "\n")
    (root / "mine.py").write_text(VERIFIER)
    return root


def recipe(folder: Path, output: str, **changes: Any) -> TemperatureRecipe:
    found: dict[str, Any] = {
        "base": str(folder / "base"),
        "output": str(folder / output),
        "name": "heads",
        "max_length": 64,
        "sources": [{"file": "same.jsonl"}, {"file": "other.jsonl"}],
        "validation": {"share": 0.5},
        "head": {"instruction_encoder": 16, "width": 16},
        "rollouts": {
            "prompts": 24,
            "held_out": 24,
            "samples": 8,
            "temperatures": [0.4, 1.0, 2.5],
            "max_new_tokens": TOKENS,
            "in_flight": 32,
        },
        "reward": {"verifier": "mine:worth", "directory": "."},
        "learning": {"steps": 60, "prompts": 24, "learning_rate": 0.02, "every": 20},
        "calibration": {"tokens": 60},
        **changes,
    }
    return TemperatureRecipe.parse(found, folder)


@pytest.fixture(scope="module")
def token_run(folder: Path) -> TemperatureReport:
    return train_temperature(recipe(folder, "token"), progress=False)


def _goes_both_ways(report: TemperatureReport) -> None:
    same, other = report.outcomes["same"], report.outcomes["other"]
    assert same.temperature < 0.75 < 1.4 < other.temperature
    assert same.after > same.before and other.after > other.before
    estimates = list(report.estimates.values())
    head, constants = estimates[1], [estimates[0], *estimates[2:]]
    assert head > max(constants) + 0.05, report.estimates


def test_a_head_goes_cold_where_one_answer_is_right_and_hot_where_many_are(token_run: TemperatureReport) -> None:
    """Which no constant can: at the same mean it gets less."""
    _goes_both_ways(token_run)


def test_so_does_a_head_that_chooses_once_a_request(folder: Path) -> None:
    head = {"grain": "sequence", "instruction_encoder": 16, "width": 16}
    report = train_temperature(recipe(folder, "sequence", head=head, calibration={"tokens": 0}), progress=False)
    _goes_both_ways(report)
    assert report.calibration is None


def test_it_leaves_an_adapter_of_heads_alone_with_card_pictures_and_report(
    folder: Path, token_run: TemperatureReport
) -> None:
    output = folder / "token"
    adapter = read_adapter(output, BaseMetadata.of_directory(folder / "base"))
    assert adapter.components.names == ["instruction_encoder", "temperature_head"] and not adapter.lora
    assert not adapter.components.changes_cache
    assert token_run.calibration is not None and adapter.config is not None
    assert adapter.config.calibration_temperature == token_run.calibration.temperature
    card = (output / "README.md").read_text()
    assert "| same |" in card and "## Calibration" in card and "constant at the head's mean" in card
    for picture in ("curves.png", "reliability.png"):
        assert (output / "training" / picture).read_bytes().startswith(b"\x89PNG")
    found = json.loads((output / "training" / "report.json").read_text())
    assert found == json.loads(json.dumps(token_run.to_json()))
    assert {"score_same", "factor_other", "effective"} <= set(found["history"][0])


def test_a_run_that_was_killed_goes_on_from_the_answers_that_it_has(folder: Path, token_run: TemperatureReport) -> None:
    """A killed process leaves whole lines and perhaps part of one, some features, no report."""
    before = load_file(folder / "token" / "ift_extras.safetensors")
    training = folder / "killed" / "training"
    training.mkdir(parents=True)
    lines = (folder / "token" / "training" / "rollouts.jsonl").read_bytes().splitlines(keepends=True)
    kept = b"".join(lines[:50])
    (training / "rollouts.jsonl").write_bytes(kept + lines[50][:20])
    with pytest.raises(RecipeError, match="go on from it with --resume"):
        train_temperature(recipe(folder, "killed"), progress=False)
    train_temperature(recipe(folder, "killed"), resume=True, progress=False)
    assert (training / "rollouts.jsonl").read_bytes().startswith(kept)
    after = load_file(folder / "killed" / "ift_extras.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_answers_of_another_recipe_are_not_gone_on_from(folder: Path, token_run: TemperatureReport) -> None:
    (folder / "token" / "training" / "report.json").unlink()
    with pytest.raises(RecipeError, match="answers of other prompts"):
        train_temperature(recipe(folder, "token", seed=1), resume=True, progress=False)


def test_a_dry_run_draws_nothing(folder: Path) -> None:
    report = train_temperature(recipe(folder, "dry"), dry_run=True, progress=False)
    assert report.prompts == {"same": 12, "other": 12} or sum(report.prompts.values()) == 24
    assert report.answers == (24 + 24) * 3 * 8 and not (folder / "dry").exists()


def test_files_of_others_are_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("keep")
    with pytest.raises(RecipeError, match="holds other files"):
        train_temperature(recipe(folder, str(tmp_path)), progress=False)
