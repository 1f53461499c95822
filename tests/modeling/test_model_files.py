"""Model directories that cannot be loaded: one sentence that says what is wrong and what to do, before serving."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ift_serve.modeling.decoder.model_loader import UnsupportedModelError, load_model
from ift_serve.text.tokenizer import load_tokenizer
from tests.support.architectures import build
from tests.support.models import tiny_llama

Change = Callable[[Path], object]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return build("llama", tmp_path / "model")


def _config(**changes: Any) -> Change:
    def change(model: Path) -> None:
        fields = json.loads((model / "config.json").read_text()) | changes
        (model / "config.json").write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))

    return change


def _without(pattern: str) -> Change:
    def change(model: Path) -> None:
        for file in model.glob(pattern):
            file.unlink()

    return change


def _cut(name: str, keep: int | float) -> Change:
    def change(model: Path) -> None:
        content = (model / name).read_bytes()
        (model / name).write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])

    return change


def _write(name: str, content: bytes) -> Change:
    return lambda model: (model / name).write_bytes(content)


def _tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def rewrite(model: Path) -> None:
        tensors = load_file(model / "model.safetensors")
        change(tensors)
        save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def _pickle(model: Path) -> None:
    torch.save(AutoModelForCausalLM.from_pretrained(model).state_dict(), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def _shard(model: Path) -> None:
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(model, max_shard_size="40KB")
    (model / "model.safetensors").unlink(missing_ok=True)
    sorted(model.glob("model-*.safetensors"))[1].unlink()


def _empty(model: Path) -> None:
    shutil.rmtree(model)
    model.mkdir()


def _adapter(model: Path) -> None:
    (model / "config.json").rename(model / "adapter_config.json")


def _header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
_MAP = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}

FAULTS: dict[str, tuple[Change, str]] = {
    "no directory": (shutil.rmtree, "there is no directory"),
    "empty directory": (_empty, "the directory is empty"),
    "an adapter": (_adapter, "this is an adapter and no model"),
    "no config": (lambda model: (model / "config.json").unlink(), "the directory has no config.json"),
    "config cut off": (_cut("config.json", 0.5), "config.json is not JSON, or cut off"),
    "config empty": (_cut("config.json", 0), "config.json is empty"),
    "config a list": (_write("config.json", b"[1]"), "config.json holds no JSON object"),
    "config not text": (_write("config.json", b"\xff\xfe\x00"), "config.json is not JSON"),
    "config a pointer": (_write("config.json", _POINTER), "config.json is a Git LFS pointer"),
    "no model type": (_config(model_type=None), "config.json has no model_type"),
    "model type a number": (_config(model_type=7), "config.json has no model_type"),
    "unknown model type": (_config(model_type="llama9"), "knows no model type 'llama9'"),
    "not a causal model": (_config(model_type="clip"), "cannot be loaded"),
    "width a word": (_config(hidden_size="wide"), "cannot be loaded"),
    "width of another model": (_config(hidden_size=32), "must be of one model"),
    "more layers than weights": (_config(num_hidden_layers=4), "must be of one model"),
    "no heads": (_config(num_attention_heads=0), "cannot be loaded"),
    "own code": (_config(model_type="own", auto_map=_MAP), "code of their own, which is never run"),
    "own code under a known type": (
        _config(auto_map=_MAP, architectures=["OwnForCausalLM"]),
        "OwnForCausalLM is code that comes with the model",
    ),
    "weights pickled": (_pickle, "pickled weights are never read"),
    "no weights": (lambda model: (model / "model.safetensors").unlink(), "the directory has no weights"),
    "weights of another name": (
        lambda model: (model / "model.safetensors").rename(model / "consolidated.safetensors"),
        "to say what consolidated.safetensors is",
    ),
    "weights empty": (_cut("model.safetensors", 0), "is not a safetensors file, or cut off"),
    "header cut off": (_cut("model.safetensors", 100), "is not a safetensors file, or cut off"),
    "weights cut off": (_cut("model.safetensors", 0.7), "model.safetensors is cut off"),
    "last byte missing": (_cut("model.safetensors", -1), "model.safetensors is cut off"),
    "weights a pointer": (_write("model.safetensors", _POINTER), "run git lfs pull"),
    "weights a page": (_write("model.safetensors", b"<html>" * 99), "is not a safetensors file"),
    "a tensor missing": (_tensors(lambda tensors: tensors.pop("model.norm.weight")), "model.norm.weight"),
    "a shard missing": (_shard, "weight files are missing (model-00002-of"),
    "index cut off": (_write("model.safetensors.index.json", b"{"), "does not say which files hold the weights"),
    "config nested deeply": (_write("config.json", b"[" * 200_000), "config.json is not JSON"),
    "weights of a directory above": (_config(transformers_weights="../model.safetensors"), "not a file beside it"),
    "weights of an endless name": (_config(transformers_weights="a" * 5000), "not a file beside it"),
    "weights a number": (_config(transformers_weights=7), "not a file beside it"),
    "header nested deeply": (_write("model.safetensors", _header(b"[" * 200_000)), "is not a safetensors file"),
    "a place without end": (
        _write("model.safetensors", _header(b'{"a": {"data_offsets": [0, Infinity]}}')),
        "is not a safetensors file",
    ),
    "index nested deeply": (_write("model.safetensors.index.json", b"[" * 200_000), "does not say which files"),
    "index that leads elsewhere": (
        _write("model.safetensors.index.json", b'{"weight_map": {"a": "../model.safetensors"}}'),
        "is not beside it",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_model_is_refused_in_one_plain_sentence(model: Path, fault: str) -> None:
    change, expected = FAULTS[fault]
    if fault.startswith("index"):
        (model / "model.safetensors").unlink()
    change(model)
    with pytest.raises(UnsupportedModelError) as refusal:
        load_model(str(model))
    assert expected in str(refusal.value)
    _is_plain(str(refusal.value))


def test_a_file_is_not_a_model(model: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="name the directory that holds"):
        load_model(str(model / "model.safetensors"))


def test_a_known_class_beside_code_of_its_own_is_served_without_that_code(model: Path) -> None:
    (model / "modeling_own.py").write_text("raise SystemExit('run')")
    _config(auto_map={"AutoModelForCausalLM": "modeling_own.LlamaForCausalLM"})(model)
    assert load_model(str(model)).architecture == "LlamaForCausalLM"


TOKENIZER_FAULTS: dict[str, Callable[[Path], object]] = {
    "none": _without("tokenizer*"),
    "cut off": _cut("tokenizer.json", 0.5),
    "config cut off": _cut("tokenizer_config.json", 0.5),
    "own code": _write(
        "tokenizer_config.json",
        json.dumps({"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}).encode(),
    ),
}


@pytest.mark.parametrize("fault", ["none", "cut off", "config cut off"])
def test_a_faulty_tokenizer_is_refused_in_one_plain_sentence(tmp_path: Path, fault: str) -> None:
    model = tiny_llama(tmp_path / "model")
    TOKENIZER_FAULTS[fault](model)
    with pytest.raises(ValueError, match="tokenizer") as refusal:
        load_tokenizer(str(model))
    _is_plain(str(refusal.value))


def test_a_tokenizer_of_own_code_alone_is_refused(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "model")
    (model / "tokenizer.json").rename(model / "vocab.txt")
    _config(model_type="own")(model)
    TOKENIZER_FAULTS["own code"](model)
    with pytest.raises(ValueError, match="code of its own, which is never run") as refusal:
        load_tokenizer(str(model))
    _is_plain(str(refusal.value))


def _is_plain(text: str) -> None:
    assert "\n" not in text and len(text) < 500
    for unsafe in ("trust_remote_code", "weights_only", "Traceback", "unsafe"):
        assert unsafe not in text
