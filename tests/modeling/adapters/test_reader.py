"""Adapter directories that are broken, hostile or of another model are refused by name, quickly."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ift_serve.modeling.adapters.base import BaseFacts
from ift_serve.modeling.adapters.config import BaseReference, IftConfig
from ift_serve.modeling.adapters.reader import read_adapter, shape_of
from ift_serve.modeling.adapters.weights import AdapterError
from ift_serve.modeling.adapters.writer import write_adapter
from ift_serve.modeling.instruction.config import ComponentsConfig
from tests.support.adapters import random_components
from tests.support.architectures import build

COMPONENTS = ComponentsConfig(segment_embedding=True, attention_bias=True)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> BaseFacts:
    return BaseFacts.of_directory(build("llama", tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def original(facts: BaseFacts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A right adapter, never changed."""
    from peft import LoraConfig

    torch.manual_seed(0)
    tensors = {}
    for path in sorted(facts.linears):
        if path.endswith(("q_proj", "down_proj")):
            rows, columns = facts.shapes[f"{path}.weight"]
            tensors[f"base_model.model.{path}.lora_A.weight"] = torch.randn(4, columns)
            tensors[f"base_model.model.{path}.lora_B.weight"] = torch.randn(rows, 4)
    base = BaseReference(fingerprint=facts.fingerprint, architecture=facts.architecture, shape=shape_of(facts))
    directory = tmp_path_factory.mktemp("adapters") / "original"
    write_adapter(
        directory,
        peft_fields=LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM").to_dict(),
        peft_tensors=tensors,
        config=IftConfig(base=base, components=COMPONENTS),
        extras=random_components(facts, COMPONENTS, seed=1).state_dict(),
        card="# An adapter\n",
    )
    return directory


@pytest.fixture
def adapter(original: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(original, tmp_path / "adapter"))


def test_a_right_adapter_is_read_whole(facts: BaseFacts, adapter: Path) -> None:
    weights = read_adapter(adapter, facts)
    assert len(weights.lora) == 2 * facts.layers and weights.rank == 4
    assert weights.components == COMPONENTS
    assert len(weights.version) == 16 and weights.bytes > 1000


def test_written_files_are_for_everyone(adapter: Path) -> None:
    assert {f.name: f.stat().st_mode & 0o777 for f in adapter.iterdir()} == dict.fromkeys(
        ["adapter_config.json", "adapter_model.safetensors", "ift_config.json", "ift_extras.safetensors", "README.md"],
        0o644,
    )


def test_the_version_changes_with_any_file(facts: BaseFacts, adapter: Path) -> None:
    before = read_adapter(adapter, facts).version
    _edit_tensors(adapter, lambda t: t | {next(iter(t)): next(iter(t.values())) + 1})
    assert read_adapter(adapter, facts).version != before


def _edit_tensors(
    adapter: Path, change: Callable[[dict[str, Any]], dict[str, Any]], name: str = "adapter_model.safetensors"
) -> None:
    save_file(change(load_file(adapter / name)), adapter / name)


def _edit_json(adapter: Path, name: str, **fields: Any) -> None:
    path = adapter / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _poison(tensors: dict[str, Any]) -> dict[str, Any]:
    next(iter(tensors.values()))[0, 0] = float("nan")
    return tensors


def _cut(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _link_out(adapter: Path) -> None:
    target = adapter.parent / "outside.safetensors"
    (adapter / "adapter_model.safetensors").rename(target)
    (adapter / "adapter_model.safetensors").symlink_to(target)


def _pipe(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    os.mkfifo(adapter / "adapter_model.safetensors")


def _huge_header(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle": (lambda a: (a / "adapter_model.bin").write_bytes(b"\x80\x04."), "adapter_model.bin: pickled"),
    "truncated": (_cut, "cut off"),
    "huge header": (_huge_header, "header claims"),
    "nan": (lambda a: _edit_tensors(a, _poison), "NaN or infinity"),
    "wrong shape": (
        lambda a: _edit_tensors(a, lambda t: t | {next(k for k in t if "lora_B" in k): torch.zeros(3, 4)}),
        r"factors \(4, \d+\) and \(3, 4\)",
    ),
    "huge rank": (lambda a: _edit_json(a, "adapter_config.json", r=10**6), "rank 1000000"),
    "extra tensor": (
        lambda a: _edit_tensors(a, lambda t: t | {"base_model.model.model.norm.weight": torch.zeros(64)}),
        "neither LoRA nor",
    ),
    "foreign name": (lambda a: _edit_tensors(a, lambda t: t | {"evil": torch.zeros(1)}), "evil: not a name"),
    "missing factor": (
        lambda a: _edit_tensors(a, lambda t: {k: v for k, v in t.items() if "0.mlp.down_proj.lora_B" not in k}),
        "one of its two factors is missing",
    ),
    "missing target": (
        lambda a: _edit_tensors(a, lambda t: {k: v for k, v in t.items() if "down_proj" not in k}),
        "'down_proj' has no tensor",
    ),
    "other base": (
        lambda a: _edit_json(a, "ift_config.json", base=json.loads((a / "ift_config.json").read_text())["base"]
                             | {"fingerprint": "0" * 32}),
        "base.fingerprint",
    ),
    "link out": (_link_out, "leads out of the adapter directory"),
    "pipe": (_pipe, "not a regular file"),
    "lying rank": (lambda a: _edit_json(a, "adapter_config.json", r=8), "rank 8 want"),
    "lying targets": (lambda a: _edit_json(a, "adapter_config.json", target_modules=["q_proj"]), "target_modules"),
    "lying dora": (lambda a: _edit_json(a, "adapter_config.json", use_dora=True), "magnitude and use_dora"),
    "pissa": (lambda a: _edit_json(a, "adapter_config.json", init_lora_weights="pissa"), "init_lora_weights: 'pissa'"),
    "bias": (lambda a: _edit_json(a, "adapter_config.json", bias="all"), "bias: 'all'"),
    "other method": (lambda a: _edit_json(a, "adapter_config.json", peft_type="IA3"), "peft_type: 'IA3'"),
    "unknown field": (lambda a: _edit_json(a, "adapter_config.json", layer_replication=[[0, 1]]), "layer_replication"),
    "slow pattern": (
        lambda a: _edit_json(a, "adapter_config.json", rank_pattern={"(a+)+$": 4}), "repeats groups",
    ),
    "not json": (lambda a: (a / "adapter_config.json").write_text("{"), "adapter_config.json: not JSON"),
    "deep json": (lambda a: (a / "adapter_config.json").write_text("[" * 200_000), "not JSON"),
    "other format": (lambda a: _edit_json(a, "ift_config.json", format_version=2), "format_version: 2"),
    "unknown component": (lambda a: _edit_json(a, "ift_config.json", components={"magic": 1}), "components.magic"),
    "extras missing": (lambda a: (a / "ift_extras.safetensors").unlink(), "ift_extras.safetensors: missing"),
    "extras unnamed": (
        lambda a: _edit_json(a, "ift_config.json", components={"attention_bias": True}), "is not part of",
    ),
    "extras too few": (
        lambda a: _edit_json(a, "ift_config.json", components={**COMPONENTS.model_dump(), "attention_gain": True}),
        "attention_gain.weight: is missing",
    ),
    "nothing": (lambda a: [f.unlink() for f in a.iterdir()], "not an adapter directory"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_wrong_is_refused_by_name_within_a_second(kind: str, facts: BaseFacts, adapter: Path) -> None:
    damage, message = HOSTILE[kind]
    damage(adapter)
    begun = time.monotonic()
    with pytest.raises(AdapterError, match=message):
        read_adapter(adapter, facts)
    assert time.monotonic() - begun < 1


def test_a_directory_outside_the_root_is_refused(facts: BaseFacts, adapter: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(adapter)
    with pytest.raises(AdapterError, match="leads out of the adapter root"):
        read_adapter(root / "link", facts, root)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 3000), value=st.integers(0, 255), cut=st.booleans())
def test_any_damaged_header_is_an_adapter_error_or_reads_cleanly(
    facts: BaseFacts, adapter: Path, original: Path, place: int, value: int, cut: bool
) -> None:
    raw = bytearray((original / "adapter_model.safetensors").read_bytes())
    raw[place] = value
    (adapter / "adapter_model.safetensors").write_bytes(raw[:place] if cut else raw)
    with contextlib.suppress(AdapterError):
        read_adapter(adapter, facts)
