"""`ift-serve adapters inspect`, as a person and a program run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from ift_serve.cli import app
from tests.modeling.adapter_format.cases import save_with_peft
from tests.support.architectures import build

WIDE = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llama", tmp_path_factory.mktemp("model") / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return save_with_peft(base, tmp_path / "adapter", r=4, target_modules=["q_proj"], trainable_token_indices=[3, 9])


def _run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["adapters", "inspect", *map(str, arguments)], env=WIDE)
    assert result.exit_code == code, result.output
    return result.output


def test_a_person_is_told_what_is_in_it(base: Path, adapter: Path) -> None:
    shown = _run(adapter, "--base", base)
    assert shown.startswith("valid: every tensor fits the base model")
    for words in ("3 modules: q_proj", "tokens of model.embed_tokens", "2: 3, 9", str(base)):
        assert words in shown


def test_a_program_gets_json(base: Path, adapter: Path) -> None:
    found = json.loads(_run(adapter, "--base", base, "--json"))
    assert found["valid"] is True
    assert found["lora"]["ranks"] == [4] and found["trainable_tokens"] == {"model.embed_tokens": [3, 9]}


def test_the_base_that_the_adapter_names_is_taken_where_none_is_given(base: Path, adapter: Path) -> None:
    assert json.loads(_run(adapter, "--json"))["checked_against"] == str(base)


def test_what_would_be_refused_exits_with_1_and_the_reason(base: Path, adapter: Path) -> None:
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04.")
    assert "error: adapter_model.bin: pickled files are never read" in _run(adapter, "--base", base, code=1)
    found = json.loads(_run(adapter, "--base", base, "--json", code=1))
    assert found["valid"] is False and found["error"].startswith("adapter_model.bin: pickled")


def test_another_base_is_said_to_be_another(adapter: Path) -> None:
    assert "shape" in _run(adapter, "--base", "ift-tiny", code=1)


def test_the_servers_limit_can_be_tried(base: Path, adapter: Path) -> None:
    assert "rank 4 of" in _run(adapter, "--base", base, "--max-rank", 3, code=1)


def test_what_is_read_but_not_served_is_no_valid_adapter(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=80, target_modules=["q_proj"])).save_pretrained(tmp_path / "wide")
    assert "rank 80" in _run(tmp_path / "wide", "--base", base, code=1)


def test_a_base_that_is_none_is_named(adapter: Path, tmp_path: Path) -> None:
    assert "--base" in _run(adapter, "--base", tmp_path / "nowhere", code=1)


def test_a_directory_that_is_none_is_named(tmp_path: Path) -> None:
    assert "nowhere: there is no such directory" in _run(tmp_path / "nowhere", code=1)
