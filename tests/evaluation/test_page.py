"""What the page shows, by running its script on a stand-in for a document."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ift_serve.evaluation.reporting.document import report_of
from ift_serve.evaluation.reporting.page import write_page
from ift_serve.evaluation.rows import Row
from ift_serve.evaluation.tasks.task import ConstraintVerdict

_ANSWER = "🦊, and the fox"


def _row(model: str, number: int, passed: bool) -> Row:
    verdict = ConstraintVerdict("no_comma", passed, "" if passed else "a comma", None if passed else (1, 2))
    return Row(model, "t", str(number), 0, "Say it.", _ANSWER, verdicts={"strict": (verdict,)})


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_prompts_are_filtered_and_offending_places_marked(tmp_path: Path) -> None:
    rows = [_row("base", n, n < 10) for n in range(30)] + [_row("a@1", n, n < 14) for n in range(30)]
    write_page(report_of(rows, ["base", "a@1"]), tmp_path / "page.html")
    done = subprocess.run(
        ["node", str(Path(__file__).parent / "page_dom.mjs"), str(tmp_path / "page.html")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["first"]["count"] == "30 of 30 prompts" and found["first"]["articles"] == 25
    assert set(found["first"]["marks"]) == {","}, "a place behind a character of two units"
    assert found["scores"] == 3 and found["families"] == 3 and "a@1 − base" in found["pairs"]
    assert found["filtered"] == {"count": "4 of 30 prompts", "articles": 4, "marks": [","] * 4}
    assert found["none"]["count"] == "0 of 30 prompts"
