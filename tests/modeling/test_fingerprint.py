"""A base model's fingerprint: of what it is, not of where it lies or who reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from ift_serve.modeling.loading import load_model, model_fingerprint
from tests.support.architectures import build


def _fingerprint(path: Path) -> str:
    return model_fingerprint(path, AutoConfig.from_pretrained(path))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return build("llama", tmp_path / "model")


def test_a_copy_elsewhere_is_the_same_model_in_any_dtype(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    assert _fingerprint(copy) == _fingerprint(model)
    assert load_model(str(copy), dtype="bfloat16").fingerprint == load_model(str(model), dtype="float32").fingerprint


def test_another_version_of_transformers_reads_the_same_model(model: Path) -> None:
    before = _fingerprint(model)
    fields = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(fields | {"transformers_version": "5.17.0"}))
    assert _fingerprint(model) == before


def test_other_settings_are_another_model(model: Path) -> None:
    before = _fingerprint(model)
    fields = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(fields | {"rms_norm_eps": 0.5}))
    assert _fingerprint(model) != before


@pytest.mark.parametrize("name", ["lm_head", "model.layers.2.self_attn.q_proj", "model.layers.0.mlp.down_proj"])
def test_other_weights_in_any_layer_are_another_model(model: Path, name: str) -> None:
    before = _fingerprint(model)
    file = model / "model.safetensors"
    tensors = load_file(file)
    tensors[f"{name}.weight"] += 0.01
    save_file(tensors, file, metadata={"format": "pt"})
    assert _fingerprint(model) != before
