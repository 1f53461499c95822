"""A base model's fingerprint: of its weights and structure, not of where they lie, how they are stored or who reads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.checkpoint import stored_weights
from ift_serve.modeling.decoder.model_loader import UnsupportedModelError, load_model
from tests.support.architectures import ARCHITECTURES, build


def _fingerprint(path: Path) -> str:
    return BaseMetadata.of_directory(path).fingerprint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where digests are kept, for this test alone."""
    monkeypatch.setenv("IFT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache/weights"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return build("llama", tmp_path / "model")


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    return build("llama-biased", tmp_path / "tied")


def _change(path: Path, change: Callable[[dict[str, Any]], object], file: str = "config.json") -> None:
    fields = json.loads((path / file).read_text())
    change(fields)
    (path / file).write_text(json.dumps(fields))


def _rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = path / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})


# The same model


def test_a_copy_elsewhere_is_the_same_model_in_any_dtype(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    assert _fingerprint(copy) == _fingerprint(model)
    assert load_model(str(copy), dtype="bfloat16").fingerprint == load_model(str(model), dtype="float32").fingerprint


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_server_and_trainer_agree_and_shards_do_not_count(name: str, tmp_path: Path) -> None:
    whole, sharded = build(name, tmp_path / "whole"), tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(sharded, max_shard_size="40KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    assert load_model(str(whole)).fingerprint == _fingerprint(whole) == _fingerprint(sharded)


def test_names_of_shards_do_not_count(model: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(sharded, max_shard_size="40KB")

    def rename(index: dict[str, Any]) -> None:
        index["weight_map"] = {name: f"z{file}" for name, file in index["weight_map"].items()}

    for file in sorted(sharded.glob("model-*.safetensors")):
        file.rename(sharded / f"z{file.name}")
    _change(sharded, rename, "model.safetensors.index.json")
    assert load_model(str(sharded)).fingerprint == _fingerprint(model)


@pytest.mark.parametrize("shards", [1, 3])
def test_pickled_weights_are_the_same_weights(tied: Path, tmp_path: Path, shards: int) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(tied, pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    # torch stores a shared weight under both of its names
    state = AutoModelForCausalLM.from_pretrained(tied).state_dict()
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= state.keys()
    if shards == 1:
        torch.save(state, pickled / "pytorch_model.bin")
    else:
        files = {name: f"pytorch_model-{index % shards}.bin" for index, name in enumerate(state)}
        for file in set(files.values()):
            torch.save({name: state[name] for name in state if files[name] == file}, pickled / file)
        (pickled / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    assert _fingerprint(pickled) == _fingerprint(tied)


def test_a_shared_weight_counts_the_same_under_either_name(tied: Path) -> None:
    before = _fingerprint(tied)
    _rewrite(tied, lambda tensors: tensors.update({"lm_head.weight": tensors.pop("model.embed_tokens.weight")}))
    assert load_model(str(tied)).fingerprint == before


def test_names_without_the_prefix_of_the_headless_model_are_the_same(tied: Path) -> None:
    before = _fingerprint(tied)

    def strip(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    _rewrite(tied, strip)
    assert load_model(str(tied)).fingerprint == before


def test_buffers_that_are_computed_do_not_count(model: Path) -> None:
    before = _fingerprint(model)
    _rewrite(model, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}))
    assert load_model(str(model)).fingerprint == before


def test_names_versions_and_special_tokens_do_not_count(model: Path) -> None:
    before = _fingerprint(model)
    _change(
        model, lambda fields: fields.update(transformers_version="5.17.0", _name_or_path="org/name", dtype="float16")
    )
    _change(model, lambda fields: fields.update(pad_token_id=2, use_cache=False, attention_dropout=0.1))
    assert _fingerprint(model) == before


def test_a_field_at_its_default_may_be_written_or_not(model: Path) -> None:
    before = _fingerprint(model)
    _change(model, lambda fields: (fields.pop("attention_bias"), fields.pop("hidden_act")))
    assert _fingerprint(model) == before


_BY_HUB_ID = """
from ift_serve.modeling.decoder.model_loader import UnsupportedModelError, load_model
from ift_serve.modeling.adapter_format.base import BaseMetadata
from pathlib import Path
print(load_model("org/name").fingerprint, BaseMetadata.of_directory(Path("org/name")).fingerprint)
"""


def test_a_hub_id_is_the_model_that_it_names(model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "home/hub/models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    shutil.copytree(model, repository / "snapshots" / ("0" * 40))
    found = subprocess.run(
        [sys.executable, "-c", _BY_HUB_ID],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
    )
    assert found.stdout.split() == [_fingerprint(model)] * 2


# Another model


@pytest.mark.parametrize("field", ["rms_norm_eps", "max_position_embeddings", "rope_theta"])
def test_other_settings_are_another_model(model: Path, field: str) -> None:
    before = _fingerprint(model)
    if field == "rope_theta":
        _change(model, lambda fields: fields["rope_parameters"].update(rope_theta=1234.0))
    else:
        _change(model, lambda fields: fields.update({field: type(fields[field])(512)}))
    assert _fingerprint(model) != before


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_single_bit_of_the_weights_counts(model: Path, place: float, bit: int) -> None:
    before = _fingerprint(model)
    file = model / "model.safetensors"
    content = bytearray(file.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    content[begin + int(place * (len(content) - begin))] ^= 1 << bit
    file.write_bytes(content)
    assert _fingerprint(model) != before


def test_layers_in_another_order_are_another_model(model: Path) -> None:
    before = _fingerprint(model)
    first, second = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"
    _rewrite(model, lambda tensors: tensors.update({first: tensors[second], second: tensors[first]}))
    assert _fingerprint(model) != before


def test_a_head_stored_beside_other_embeddings_counts(tied: Path) -> None:
    def store(value: float) -> str:
        _rewrite(tied, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + value}))
        assert load_model(str(tied)).fingerprint == _fingerprint(tied)
        return _fingerprint(tied)

    shared = _fingerprint(tied)
    assert len({shared, store(0.5), store(1.5)}) == 3


@pytest.mark.parametrize(("value", "prefix"), [(0.0, "model."), (0.5, "model."), (0.5, "")])
def test_whether_a_head_is_shared_is_what_the_files_store(tied: Path, value: float, prefix: str) -> None:
    both = [BaseMetadata.of_directory(tied), BaseMetadata.of_model(load_model(str(tied)))]
    assert all(metadata.tied and metadata.tied_by_name for metadata in both)

    def store(tensors: dict[str, torch.Tensor]) -> None:
        embeddings = tensors.pop("model.embed_tokens.weight")
        tensors |= {f"{prefix}embed_tokens.weight": embeddings, "lm_head.weight": embeddings + value}

    _rewrite(tied, store)
    loaded = load_model(str(tied))
    own: Any = loaded.model
    shared = own.lm_head.weight is own.model.embed_tokens.weight
    assert shared is (value == 0)
    for metadata in (BaseMetadata.of_directory(tied), BaseMetadata.of_model(loaded)):
        assert metadata.tied is shared and metadata.tied_by_name


def test_weights_in_another_dtype_are_other_weights(model: Path, tmp_path: Path) -> None:
    narrow = tmp_path / "narrow"
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(narrow)
    assert _fingerprint(narrow) != _fingerprint(model)


# What is kept


def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files written by this test count as written long ago."""
    monkeypatch.setattr(stored_weights, "_SETTLED", -1.0)


def _refuse_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(file: Path) -> None:
        raise AssertionError(f"{file} is read again")

    monkeypatch.setattr(stored_weights, "_read", read)


def test_files_are_read_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _settled(monkeypatch)
    before = _fingerprint(model)
    _refuse_to_read(monkeypatch)
    assert _fingerprint(model) == before


def test_a_file_written_a_moment_ago_is_read_again(model: Path, cache: Path) -> None:
    _fingerprint(model)
    assert list(cache.iterdir()) == []


def test_a_file_with_its_times_set_back_is_read_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _settled(monkeypatch)
    before = _fingerprint(model)
    file = model / "model.safetensors"
    status = file.stat()
    with file.open("r+b") as opened:
        opened.seek(-4, os.SEEK_END)
        opened.write(b"\1\2\3\4")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_mtime_ns, file.stat().st_size) == (status.st_mtime_ns, status.st_size)
    assert _fingerprint(model) != before


@pytest.mark.parametrize("damage", ["cut off", "empty", "of another key", "not what it should be", "a directory"])
def test_what_was_kept_and_is_damaged_is_computed_again(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    _settled(monkeypatch)
    before = _fingerprint(model)
    [kept] = cache.iterdir()
    content = json.loads(kept.read_text())
    if damage == "cut off":
        kept.write_bytes(kept.read_bytes()[:-100])
    elif damage == "empty":
        kept.write_bytes(b"")
    elif damage == "of another key":
        kept.write_text(json.dumps({"key": ["another"], "value": {}}))
    elif damage == "not what it should be":
        kept.write_text(json.dumps({"key": content["key"], "value": {"lm_head.weight": 3}}))
    else:
        kept.unlink()
        kept.mkdir()
    assert _fingerprint(model) == before


def test_without_a_place_to_keep_anything_it_is_computed(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = _fingerprint(model)
    for name in ("IFT_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, "/dev/null/nowhere")
    monkeypatch.setattr("tempfile.tempdir", "/dev/null/nowhere")
    assert _fingerprint(model) == before


@pytest.mark.parametrize("damage", ["cut off", "no header", "no weights"])
def test_files_that_cannot_be_read_are_named(model: Path, damage: str) -> None:
    file = model / "model.safetensors"
    content = file.read_bytes()
    if damage == "cut off":
        file.write_bytes(content[:-100])
    elif damage == "no header":
        file.write_bytes(b"\xff" * 100)
    else:
        file.unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        _fingerprint(model)


def test_an_adapter_that_transformers_would_load_into_the_model_is_refused(model: Path) -> None:
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model), LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(str(model))
    with pytest.raises(UnsupportedModelError, match="move the adapter to a directory of its own"):
        load_model(str(model))
    with pytest.raises(OSError, match="move the adapter to a directory of its own"):
        BaseMetadata.of_directory(model)
