"""Where a base model is found by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ift_serve.modeling.checkpoint.location import NoModelError, base_directory
from tests.support.hub_cache import cached


def test_a_directory_and_a_cached_id_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert base_directory(str(tmp_path / "model")) == tmp_path / "model"
    snapshot = cached(tmp_path / "model", "some-org/some-model", tmp_path / "hub", monkeypatch)
    assert base_directory("some-org/some-model") == snapshot
    monkeypatch.chdir(tmp_path)
    assert base_directory("model") == Path("model")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("some-org/another", r"download it first \(hf download some-org/another\), or name a directory"),
        ("some-org/tokenizer-only", "holds no model of that id"),
        ("/nowhere/at/all", "no such directory, and it is no hub id"),
        ("../nowhere", "no such directory, and it is no hub id"),
        ("", "no such directory, and it is no hub id"),
    ],
)
def test_what_is_not_there_is_named(name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "tokenizer.json").touch()
    cached(tmp_path / "part", "some-org/tokenizer-only", tmp_path / "hub", monkeypatch)
    with pytest.raises(NoModelError, match=said):
        base_directory(name)
