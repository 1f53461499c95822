"""The table of adapters on a terminal that is as wide as most."""

from __future__ import annotations

import re

import pytest

from ift_serve.cli.adapter_commands import _explain, _show
from ift_serve.client import Adapter


def adapter(path: str, components: tuple[str, ...]) -> Adapter:
    return Adapter(
        name="support-assistant",
        version="3f6c0a9b12d4e5f60718293a4b5c6d7e",
        state="ready",
        rank=64,
        bytes=5 << 20,
        components=components,
        in_flight=3,
        path=path,
        message="",
    )


@pytest.mark.parametrize("columns", [40, 80, 120, 300])
def test_no_value_is_cut_at_any_width(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": str(columns)}.items():
        monkeypatch.setenv(name, value)
    long = adapter("teams/[support]/assistants/2026-11/version-2", ("segment_embedding", "instruction_encoder"))
    _show([long, adapter("a", ())], False)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert all(len(line) <= columns for line in shown.splitlines())
    values = shown if columns > 40 else "".join(line.split()[-1] for line in shown.splitlines() if line.strip())
    for value in (long.name, long.version, long.path):
        assert value in values


def test_what_is_in_a_directory_keeps_its_names_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    name = "tokens of model.language_model.embed_tokens.weight"
    _explain([(name, "12: " + ", ".join(map(str, range(40)))), ("base", "Llama sha256:0123456789")])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.strip().startswith(name) for line in lines) and all(len(line) <= 80 for line in lines)


def test_in_a_pipe_each_adapter_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    _show([adapter("teams/support/assistants/2026-11/version-2", ("segment_embedding", "instruction_encoder"))], False)
    assert any("support-assistant" in line and "version-2" in line for line in capsys.readouterr().out.splitlines())
