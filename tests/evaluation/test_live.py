"""What is told while a run goes on, and by the command that has the server ask itself."""

from __future__ import annotations

import asyncio
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ift_serve.cli import app
from ift_serve.cli.demo_report import write_demo_report
from ift_serve.client import Client
from ift_serve.evaluation.reporting.tables import live_table, progress_line
from ift_serve.evaluation.rows import Row
from ift_serve.evaluation.run import Progress
from ift_serve.evaluation.serving.event_loop import EventLoopThread
from ift_serve.evaluation.tasks.task import ConstraintVerdict
from ift_serve.modeling.adapter_format.base import BaseMetadata
from tests.support.adapters import EVERYTHING, write_random


def _row(passed: bool = True, error: str = "") -> Row:
    verdicts = {} if error else {"strict": (ConstraintVerdict("f", passed),)}
    return Row("base", "t", "1", 0, "prompt", error=error, verdicts=verdicts)


def _printed(table: object, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


def test_the_table_tells_what_is_done_the_score_so_far_errors_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress(40, started=now)
    progress.planned["base", "t"] = progress.planned["tone@1", "t"] = 20
    assert "0/40" in progress_line(progress) and "left" not in progress_line(progress)
    for row in (_row(), _row(), _row(passed=False), _row(error="UNAVAILABLE: gone")):
        progress.add(row)
    now = 108.0
    shown = _printed(live_table(progress))
    for text in ("base", "4/20", "66.7%", "0/20", "4/40, 0.5 a second, 1 not answered, 1:12 left"):
        assert text in shown, shown
    progress.total = 40_000
    assert progress_line(progress).endswith("22:13:12 left")


def test_answers_that_were_kept_do_not_shorten_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress(1000, started=now)
    progress.planned["base", "t"] = 1000
    for _ in range(500):
        progress.add(_row())
    for _ in range(100):
        now += 2.0
        progress.add(_row())
    assert progress.rate == pytest.approx(0.5, rel=0.05) and progress.seconds_left == pytest.approx(800, rel=0.05)


def test_the_server_asks_itself_and_says_what_the_command_would(hosting_server: str, tmp_path: Path) -> None:
    command = ["eval", "--target", hosting_server, "--limit", "29", "--json"]
    run = CliRunner()
    asked = run.invoke(app, [*command, "--report", str(tmp_path / "asked")])
    hosted = run.invoke(app, [*command, "--report", str(tmp_path / "hosted"), "--on-server"])
    assert (asked.exit_code, hosted.exit_code) == (0, 0), hosted.output
    found: list[dict[str, Any]] = [json.loads(done.stdout) for done in (asked, hosted)]
    assert found[0]["scores"] == found[1]["scores"] and found[0]["settings"] == found[1]["settings"]
    saved = tmp_path / "hosted/report.json"
    assert len(json.loads(saved.read_text(encoding="utf-8"))["rows"]) == 29
    assert "<!doctype html>" in (tmp_path / "hosted/report.html").read_text(encoding="utf-8")
    assert run.invoke(app, [*command, "--report", str(tmp_path), "--on-server", "--fail-under", "1"]).exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "ifeval"], "tasks[0]: ifeval"),
        (["--data", "ifeval=no-such-file"], "ifeval is not among the tasks"),
        (["--tasks", "ifeval", "--data", "ifeval=no-such-file"], "no-such-file: cannot be read"),
        (["--decoding", "temprature=1"], "decoding: temprature: no such setting"),
    ],
)
def test_what_is_wrong_with_a_run_on_the_server_is_said(
    hosting_server: str, tmp_path: Path, options: list[str], message: str
) -> None:
    command = ["eval", "--target", hosting_server, "--report", str(tmp_path), "--on-server", *options]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1 and message in done.output, done.output


def test_a_log_gets_a_line_now_and_then(hosting_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ift_serve.cli.eval as command

    monkeypatch.setattr(command, "_LOG_SECONDS", 0.0)
    done = CliRunner().invoke(app, ["eval", "--target", hosting_server, "--limit", "3", "--report", str(tmp_path)])
    assert done.exit_code == 0 and "3/3, " in done.stderr and "a second" in done.stderr


def test_the_demo_ends_with_a_page(tiny_server: str, tiny_model: Path, adapter_root: Path, tmp_path: Path) -> None:
    write_random(adapter_root / "demo", BaseMetadata.of_directory(tiny_model), EVERYTHING, seed=3)
    with Client(tiny_server) as client:
        version = client.load_adapter("demo", "demo").version
    console = Console(file=io.StringIO(), record=True, width=120)
    found = write_demo_report(int(tiny_server.rpartition(":")[2]), "demo", tmp_path, console, limit=2)
    assert found["models"] == ["base", f"demo@{version}"] and len(found["rows"]) == 4
    assert (tmp_path / "report.html").is_file() and (tmp_path / "report.json").is_file()
    assert "adherence" in console.export_text()


def test_an_event_loop_ends_with_what_runs_in_it() -> None:
    ended = []

    async def forever() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    with EventLoopThread() as loop:
        loop.start(forever())
        loop.run(asyncio.sleep(0))
    assert ended == [True]
