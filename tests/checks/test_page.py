"""The page about checks names each of them with its fields."""

from __future__ import annotations

import re
from pathlib import Path

from ift_serve.checks import CHECKS
from ift_serve.checks.instructions import INSTRUCTIONS

PAGE = (Path(__file__).parents[2] / "docs/checks.md").read_text(encoding="utf-8")


def test_every_type_is_on_the_page_with_its_fields() -> None:
    rows = {}
    for names, fields in re.findall(r"^\| (`[a-z_`, ]+`) \|([^|]*)\|", PAGE, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            rows[name] = set(re.findall(r"`(\w+)`", fields))
    assert set(rows) == set(CHECKS)
    for name, kind in CHECKS.items():
        assert set(kind.model_fields) - {"type"} <= rows[name], name


def test_the_page_names_the_instructions_that_the_columns_judge_apart() -> None:
    named = set(re.findall(r"^\| `([a-z_]+:[a-z_]+)` \|", PAGE, re.MULTILINE))
    apart = {name for name, kind in INSTRUCTIONS.items() if "published" in vars(kind)}
    assert named == apart
