"""The options of `ift-serve serve` about shares and priority reach the server's configuration."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ift_serve.cli import app
from ift_serve.server.config import ServerConfig


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (256, 1024, 16, 10)),
        (
            ["--max-waiting", "5", "--max-calls", "9", "--max-admin-calls", "3", "--max-priority", "0"],
            (5, 9, 3, 0),
        ),
    ],
)
def test_options_about_shares(arguments: list[str], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[ServerConfig] = []
    monkeypatch.setattr("ift_serve.server.run.serve", lambda config, open_engine, evaluate: given.append(config))
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == 0, result.output
    config = given[0]
    found = (config.engine.max_waiting, config.max_calls, config.max_admin_calls, config.limits.max_priority)
    assert found == expected
