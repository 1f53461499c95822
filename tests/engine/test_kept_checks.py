"""The comparison with transformers at a start is not made again for the same model, and is for any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.runner.model_runner import ModelRunner
from tests.engine.test_parity import LENGTHS, _expected, _prompts, _run_together
from tests.support.architectures import build

COMPARING = ["comparing a small model with transformers", "comparing the model with transformers"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFT_CACHE_DIR", str(tmp_path / "cache"))


def _started(model: Path, keeps_checks: bool = True, **options: object) -> tuple[ModelRunner, list[str]]:
    """A runner, and which comparisons it made."""
    stages: list[str] = []
    config = EngineConfig.model_validate(
        {"model": str(model), "dtype": "float32", "total_blocks": 80, "threads": 1} | options
    )
    runner = ModelRunner(config, stages.append, keeps_checks=keeps_checks)
    return runner, [stage for stage in stages if stage.startswith("comparing")]


def test_the_second_start_does_not_compare_and_answers_alike(tmp_path: Path) -> None:
    """phimoe's windows are found in its masks alone, while it is compared; later starts must know them."""
    path = build("phimoe", tmp_path / "model")
    assert _started(path)[1] == COMPARING
    runner, compared = _started(path)
    assert not compared
    prompts = _prompts()[: len(LENGTHS) // 2]
    assert _run_together(runner, prompts, chunk=7) == _expected(path, prompts)


def test_who_does_not_keep_checks_compares(tmp_path: Path) -> None:
    path = build("llama", tmp_path / "model")
    assert _started(path)[1] == COMPARING
    assert _started(path, keeps_checks=False)[1] == COMPARING


def test_another_backend_or_context_is_compared_again(tmp_path: Path) -> None:
    path = build("llama", tmp_path / "model")
    assert _started(path)[1] == COMPARING
    assert _started(path, context_length=32)[1] == COMPARING
    assert _started(path, attention_backend="reference")[1] == COMPARING
    assert not _started(path)[1]


def test_other_weights_of_the_same_shape_are_compared_again(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = build("llama", tmp_path / "model")
    assert _started(path)[1] == COMPARING
    file = path / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in sorted(weights) if name.endswith("up_proj.weight"))
    weights[name] = weights[name] + torch.full_like(weights[name], 0.01)
    save_file(weights, file, metadata={"format": "pt"})
    assert _started(path)[1] == COMPARING
