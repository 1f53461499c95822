"""What the terminal shows of curves, wordings, turns, and what was seen in training."""

from __future__ import annotations

import io

from rich.console import Console

from ift_serve.evaluation.reporting.breakdown_tables import breakdown_tables
from ift_serve.evaluation.reporting.document import report_of
from ift_serve.evaluation.rows import Row
from ift_serve.evaluation.tasks.task import ConstraintVerdict


def _row(model: str, key: str, passed: bool, turn: int = 0, **labels: str | int) -> Row:
    verdicts = {"strict": [ConstraintVerdict("case", passed, turn=turn)]}
    return Row(model, "t", key, 0, "?", answer="x", verdicts=verdicts, labels=labels)


def _said(rows: list[Row], trained_on: dict[str, list[str]]) -> str:
    written = io.StringIO()
    console = Console(file=written, width=160)
    for table in breakdown_tables(report_of(rows, ["base", "tuned"], trained_on)):
        console.print(table)
    return written.getvalue()


def test_each_part_that_has_rows_is_a_table() -> None:
    rows = []
    for model in ("base", "tuned"):
        for number in range(4):
            labels: dict[str, str | int] = {"constraints": 7, "cousin_of": "a", "cousin": number, "kind": "family"}
            rows.append(_row(model, f"a#{number}", model == "base", 1, **labels))
        rows.append(Row(model, "text", "0", 0, "?", log_prob=-8.0, text_tokens=4, text_bytes=10))
    said = _said(rows, {"tuned": ["family:sort"]})
    titles = ("by number of constraints", "in every wording", "by turn", "seen and unseen", "forgotten", "texts before")
    for title in titles:
        assert title in said
    forgotten = said.partition("forgotten")[2]
    assert "4" in forgotten and "100.0%" in forgotten


def test_a_plain_run_has_none() -> None:
    assert _said([_row("base", "a", True), _row("tuned", "a", True)], {}) == ""
