"""`ift-serve adapters keygen`, `sign` and `verify`, as a person and a program run them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ift_serve.cli import app
from ift_serve.modeling.adapter_format.signing.manifest import MANIFEST


def _run(*arguments: object, code: int = 0, said: str = "") -> str:
    result = CliRunner().invoke(app, ["adapters", *map(str, arguments)], input=said, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "adapter"
    made.mkdir()
    (made / "README.md").write_text("# An adapter\n")
    return made


def test_keys_are_made_sign_and_are_trusted(tmp_path: Path, directory: Path) -> None:
    key, public = tmp_path / "ours.key", tmp_path / "ours.pub"
    assert "to be trusted" in _run("keygen", tmp_path / "ours", "--no-password")
    assert key.stat().st_mode & 0o777 == 0o600
    assert "is there already" in _run("keygen", tmp_path / "ours", "--no-password", code=1)
    assert "1 files signed by key" in _run("sign", directory, "--key", key, "--name", "tone")
    assert "to be loaded as tone only" in _run("verify", directory, "--keys", public)
    found = json.loads(_run("verify", directory, "--keys", tmp_path, "--json"))
    assert found["valid"] and found["name"] == "tone" and found["files"] == ["README.md"]
    (directory / "more").write_text("")
    assert "error: more: is not in the signed manifest" in _run("verify", directory, "--keys", public, code=1)
    assert json.loads(_run("verify", directory, "--keys", public, "--json", code=1))["valid"] is False


def test_a_password_is_asked_for_or_read(tmp_path: Path, directory: Path) -> None:
    password, key = tmp_path / "password", tmp_path / "ours.key"
    password.write_text("right\nignored\n")
    _run("keygen", tmp_path / "ours", said="right\nright\n")
    assert b"right" not in key.read_bytes()
    _run("sign", directory, "--key", key, "--password-file", password)
    _run("sign", directory, "--key", key, said="right\n")
    assert "wrong password" in _run("sign", directory, "--key", key, said="wrong\n", code=1)


def test_what_is_no_key_or_cannot_be_signed_is_said(tmp_path: Path, directory: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("no key\n")
    assert "not a secret key" in _run("sign", directory, "--key", wrong, code=1)
    assert "not a public key" in _run("verify", directory, "--keys", wrong, code=1)
    _run("keygen", tmp_path / "ours", "--no-password")
    assert "is not one that adapters are loaded as" in _run(
        "sign", directory, "--key", tmp_path / "ours.key", "--name", "../up", code=1
    )
    assert not (directory / MANIFEST).exists()
