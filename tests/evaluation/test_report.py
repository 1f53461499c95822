"""Reports, what they say to programs and browsers, and the command that writes them."""

from __future__ import annotations

import asyncio
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ift_serve.cli import app
from ift_serve.client import AsyncClient
from ift_serve.evaluation.reporting.document import read_document, report_of, rows_of, write_document
from ift_serve.evaluation.reporting.page import page
from ift_serve.evaluation.reporting.tables import failure_lines, score_table
from ift_serve.evaluation.reporting.verdict import problems
from ift_serve.evaluation.rows import Row
from ift_serve.evaluation.run import Plan, evaluate
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.result_store import ResultStore
from ift_serve.evaluation.tasks.adherence import Adherence
from ift_serve.evaluation.tasks.task import ConstraintVerdict, spread
from ift_serve.modeling.adapter_format.base import BaseMetadata
from tests.support.adapters import EVERYTHING, write_random

_HOSTILE = "</script><script>alert(1)</script><!-- \u2028"


def _rows(model: str, kept: int) -> list[Row]:
    verdicts = [ConstraintVerdict("f", i < kept, "", (0, 2)) for i in range(10)]
    return [
        Row(model, "t", str(i), 0, "prompt", _HOSTILE, verdicts={"strict": (verdict,)})
        for i, verdict in enumerate(verdicts)
    ]


def _report(kept: int, model: str = "base") -> dict[str, Any]:
    return report_of(_rows(model, kept), [model])


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_document(_report(4), path)
    assert rows_of(read_document(path), path) == _rows("base", 4)


def test_texts_of_models_cannot_leave_the_data_of_the_page() -> None:
    found = page(_report(4))
    assert _HOSTILE not in found
    data = re.search(r'<script id="report" type="application/json">(.*?)</script>', found, re.DOTALL)
    assert data is not None and json.loads(data.group(1))["rows"][0]["answer"] == _HOSTILE


def test_the_page_asks_nobody_for_anything() -> None:
    found = page(_report(4))
    assert "default-src 'none'" in found
    allowed = {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"https?://[^\s\"'<>]+", found)) <= allowed
    assert not re.search(r"\b(?:src|action)=|@import|url\(|fetch\(|XMLHttpRequest|innerHTML", found)
    assert set(re.findall(r"\bhref=\"([^\"]*)", found)) == {"data:,", "#main"}


@pytest.mark.parametrize(
    ("kept", "fail_under", "before", "count"),
    [(5, 0.5, None, 0), (5, 0.6, None, 1), (5, None, 5, 0), (5, None, 6, 1), (5, None, 4, 0)],
)
def test_the_verdict_on_a_run(kept: int, fail_under: float | None, before: int | None, count: int) -> None:
    old = None if before is None else _report(before)
    assert len(problems(_report(kept), fail_under, old, 0.0)) == count


def test_a_new_version_of_an_adapter_is_held_to_the_old_one() -> None:
    assert problems(_report(5, "a@2"), None, _report(6, "a@1"), 0.0)
    assert problems(_report(5, "b@2"), None, _report(5, "a@1"), 0.0) == ["a@1, t, strict: was 50.0% and is missing"]


def test_nothing_answered_is_no_success() -> None:
    rows = [Row("base", "t", "1", 0, "prompt", error="UNAVAILABLE: gone")]
    assert problems(report_of(rows, ["base"]), None, None, 0.0) == ["base, t: nothing was answered"]


def test_lost_answers_are_no_success_and_refused_prompts_are() -> None:
    errors = ["UNAVAILABLE: the engine ended", "DEADLINE_EXCEEDED: late", "UNAVAILABLE: gone", "INVALID_ARGUMENT: long"]
    rows = [Row("base", "t", str(n), 0, "prompt", error=error) for n, error in enumerate(["", *errors])]
    assert problems(report_of(rows, ["base"]), None, None, 0.0) == [
        "base, t: 3 of 5 answers are missing (UNAVAILABLE, DEADLINE_EXCEEDED)"
    ]
    assert problems(report_of([rows[0], rows[4]], ["base"]), None, None, 0.0) == []


async def test_a_run_asks_every_model_every_prompt_every_time(embedded_server: str) -> None:
    plan = Plan([Adherence()], settings=DecodingSettings(sampling={"temperature": 1.0}), repeats=2, limit=8)
    seen = []
    async with AsyncClient(embedded_server, retries=0) as client:
        result = await evaluate(client, plan, ResultStore(), shown=lambda progress: seen.append(progress.done))
    assert [(r.key, r.repeat) for r in result.rows] == [
        (item.key, r) for item in spread(Adherence().items(), 8) for r in range(2)
    ]
    assert seen == list(range(1, 17)) and not any(r.error for r in result.rows)
    assert result.runner.totals.most_in_flight <= result.runner.concurrency == 16
    assert any(a.answer != b.answer for a, b in zip(result.rows[::2], result.rows[1::2], strict=True))


async def test_models_are_versions_and_are_compared_on_the_same_prompts(
    tiny_server: str, tiny_model: Path, adapter_root: Path
) -> None:
    write_random(adapter_root / "second", BaseMetadata.of_directory(tiny_model), EVERYTHING, seed=2)
    settings = DecodingSettings(sampling={"temperature": 0.0, "max_new_tokens": 12})
    async with AsyncClient(tiny_server, retries=0) as client:
        version = (await client.load_adapter("second", "second")).version
        result = await evaluate(client, Plan([Adherence()], ["base", "second"], settings, limit=10), ResultStore())
    assert result.models == ["base", f"second@{version}"]
    by_model = {model: [row for row in result.rows if row.model == model] for model in result.models}
    assert [r.key for r in by_model["base"]] == [r.key for r in by_model[f"second@{version}"]]
    assert [r.answer for r in by_model["base"]] != [r.answer for r in by_model[f"second@{version}"]]
    (compared,) = report_of(result.rows, result.models)["comparisons"]
    assert (compared["first"], compared["second"], compared["prompts"]) == ("base", f"second@{version}", 10)


def test_the_command_reports_resumes_and_compares(embedded_server: str, tmp_path: Path) -> None:
    run = CliRunner()
    command = ["eval", "--target", embedded_server, "--limit", "58", "--report", str(tmp_path / "a"), "--json"]
    first = run.invoke(app, command)
    assert first.exit_code == 0, first.output
    found = json.loads(first.stdout)
    assert found["coverage"][0]["answered"] == 58 and found["run"]["kept"] == 0
    again = json.loads(run.invoke(app, command).stdout)
    assert again["run"]["kept"] == 58 and again["scores"] == found["scores"]
    assert "<!doctype html>" in (tmp_path / "a/report.html").read_text(encoding="utf-8")
    saved = str(tmp_path / "a/report.json")
    compared = run.invoke(app, ["eval", "compare", saved, saved, "--json"])
    assert json.loads(compared.stdout)["comparisons"][0]["difference"] == 0.0
    assert run.invoke(app, [*command, "--no-regression-against", saved]).exit_code == 0
    assert run.invoke(app, [*command, "--fail-under", "1"]).exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "ifeval"], "--data ifeval=FILE"),
        (["--decoding", "temprature=1"], "temprature: no such setting"),
        (["--adapter", "nobody"], "adapter nobody"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    embedded_server: str, tmp_path: Path, options: list[str], message: str
) -> None:
    done = CliRunner().invoke(app, ["eval", "--target", embedded_server, "--report", str(tmp_path), *options])
    assert done.exit_code == 1 and message in done.output


def test_asyncio_is_not_left_with_a_task_a_request() -> None:
    """The runner keeps as many tasks as requests are in flight, however many requests there are."""
    from ift_serve.evaluation.serving.request_runner import RequestRunner
    from ift_serve.evaluation.serving.requests import WholeText

    most = 0

    class Counting(RequestRunner):
        async def outcomes(self, request: Any) -> Any:
            nonlocal most
            most = max(most, len(asyncio.all_tasks()))
            await asyncio.sleep(0)
            return [request]

    runner = Counting.__new__(Counting)
    runner.concurrency = 8
    found: dict[int, Any] = {}
    asyncio.run(runner.run((WholeText(str(i)) for i in range(20_000)), lambda index, one: found.update({index: one})))
    assert len(found) == 20_000 and most <= 9


def test_tables_tell_why_requests_were_not_answered() -> None:
    errors = ["UNAVAILABLE: gone", "INVALID_ARGUMENT: too long", "UNAVAILABLE: gone"]
    rows = [Row("base", "t", str(i), 0, "prompt", error=error) for i, error in enumerate(errors)]
    found = report_of([*rows, Row("base", "t", "9", 0, "prompt", "an answer that nobody judges")], ["base"])
    assert failure_lines(found) == ["2 not answered: UNAVAILABLE: gone", "1 not answered: INVALID_ARGUMENT: too long"]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(score_table(found))
    assert "1/4" in console.export_text()
