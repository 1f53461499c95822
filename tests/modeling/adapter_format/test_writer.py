"""Written directories: complete at once, for everyone, read back equal, and loadable by PEFT without us."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from ift_serve.modeling.adapter_format.apply import merged_reference
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.config import BaseReference, IftConfig
from ift_serve.modeling.adapter_format.reader import read_adapter
from ift_serve.modeling.adapter_format.writer import write_adapter
from tests.modeling.adapter_format.cases import base_model, logits, peft_logits
from tests.modeling.adapter_format.conftest import COMPONENTS
from tests.support.adapters import random_components

FIVE = {"adapter_config.json", "adapter_model.safetensors", "ift_config.json", "ift_extras.safetensors", "README.md"}
OPTIONS: dict[str, Any] = {
    "r": 4,
    "target_modules": ["q_proj", "v_proj", "down_proj"],
    "use_rslora": True,
    "rank_pattern": {"v_proj": 2, "layers.1.self_attn.v_proj": 6, "^model.layers.0.mlp.down_proj": 5},
}


@pytest.fixture
def narrow_umask() -> Iterator[None]:
    """Of a careful user, for whom new files are private."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def _write(directory: Path, base: Path, metadata: BaseMetadata, *, extras: bool = True, seed: int = 0) -> Tensor:
    """Write an adapter from a PEFT model in memory; returns that model's logits."""
    torch.manual_seed(seed)
    model = get_peft_model(base_model(base), LoraConfig(task_type="CAUSAL_LM", **OPTIONS))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    reference = BaseReference(
        fingerprint=metadata.fingerprint, architecture=metadata.architecture, shape=metadata.shape
    )
    write_adapter(
        directory,
        peft_fields=model.peft_config["default"].to_dict(),
        peft_tensors=get_peft_model_state_dict(model),
        config=IftConfig(base=reference, components=COMPONENTS) if extras else IftConfig(base=reference),
        extras=random_components(metadata, COMPONENTS, seed=seed).state_dict() if extras else {},
        card="# Grüße\n",
    )
    return logits(model.eval())


def test_it_is_read_back_and_loaded_by_peft(
    base_of: Callable[[str], Path], metadata: BaseMetadata, tmp_path: Path, narrow_umask: None
) -> None:
    path, directory = base_of("llama"), tmp_path / "new" / "adapter"
    expected = _write(directory, path, metadata)
    modes = {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()}
    assert modes == dict.fromkeys(FIVE, 0o644)
    assert directory.stat().st_mode & 0o777 == 0o755
    torch.testing.assert_close(peft_logits(path, directory), expected, atol=1e-5, rtol=1e-5)
    weights = read_adapter(directory, metadata)
    torch.testing.assert_close(logits(merged_reference(base_model(path), weights)), expected, atol=1e-5, rtol=1e-5)
    components = random_components(metadata, COMPONENTS, seed=0).state_dict()
    assert set(weights.extras) == set(components)
    assert all(torch.equal(weights.extras[name], tensor) for name, tensor in components.items())
    assert weights.lora["model.layers.1.self_attn.v_proj"].a.shape[0] == 2, "the first pattern of the dictionary counts"


def test_nothing_else_is_left_behind(base_of: Callable[[str], Path], metadata: BaseMetadata, tmp_path: Path) -> None:
    _write(tmp_path / "adapter", base_of("llama"), metadata)
    assert [entry.name for entry in tmp_path.iterdir()] == ["adapter"]


def test_an_existing_directory_gets_the_new_adapter_and_keeps_other_files(
    base_of: Callable[[str], Path], metadata: BaseMetadata, tmp_path: Path
) -> None:
    directory = tmp_path / "adapter"
    _write(directory, base_of("llama"), metadata)
    before = read_adapter(directory, metadata).version
    (directory / "curves.png").write_bytes(b"png")
    _write(directory, base_of("llama"), metadata, extras=False, seed=1)
    after = read_adapter(directory, metadata)
    assert after.version != before and not after.extras
    assert {file.name for file in directory.iterdir()} == FIVE - {"ift_extras.safetensors"} | {"curves.png"}


def test_a_failed_write_leaves_the_old_adapter(
    base_of: Callable[[str], Path], metadata: BaseMetadata, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "adapter"
    _write(directory, base_of("llama"), metadata)
    before = read_adapter(directory, metadata).version

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        _write(directory, base_of("llama"), metadata, seed=1)
    assert read_adapter(directory, metadata).version == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["adapter"]


def test_an_adapter_of_components_alone_has_no_files_of_peft(metadata: BaseMetadata, tmp_path: Path) -> None:
    reference = BaseReference(
        fingerprint=metadata.fingerprint, architecture=metadata.architecture, shape=metadata.shape
    )
    write_adapter(
        tmp_path / "heads",
        peft_fields=None,
        peft_tensors={},
        config=IftConfig(base=reference, components=COMPONENTS, template="{{ messages }}", scores={"a": 0.5}),
        extras=random_components(metadata, COMPONENTS, seed=0).state_dict(),
        card="",
    )
    weights = read_adapter(tmp_path / "heads", metadata)
    assert not weights.lora and weights.rank == 0 and weights.components == COMPONENTS
    assert weights.config is not None and weights.config.template == "{{ messages }}"
    assert json.loads((tmp_path / "heads" / "ift_config.json").read_text())["format_version"] == 1
