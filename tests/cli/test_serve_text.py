"""The options of `ift-serve serve` about text reach the server's configuration."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ift_serve.cli import app
from ift_serve.server.config import ServerConfig


@pytest.mark.parametrize(
    ("arguments", "template", "parse"),
    [([], None, False), (["--chat-template", "tool_use", "--parse-special-tokens"], "tool_use", True)],
)
def test_options_about_text(
    arguments: list[str], template: str | None, parse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[ServerConfig] = []
    monkeypatch.setattr("ift_serve.server.run.serve", lambda config, open_engine, evaluate: given.append(config))
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == 0, result.output
    assert (given[0].engine.chat_template, given[0].parse_special_tokens) == (template, parse)
