"""A megabyte of hostile text takes every check a bounded time: work is linear, so nothing has to be cut off."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ift_serve.checks import CHECKS, Check, parse_check
from ift_serve.checks.instructions import INSTRUCTIONS
from tests.checks.ifbench.cases import CASES as IFBENCH_CASES
from tests.checks.ifeval.cases import CASES as IFEVAL_CASES

for package in ("langdetect", "punkt", "emoji", "syllapy"):
    pytest.importorskip(package, reason=f"some instructions need {package}, of the extra eval")

_SIZE, _SMALL = 1_000_000, 32_000
_SECONDS = 6.0
"""Of processor time for a check of a megabyte, in either column; a slow core takes 2 s for the worst one."""
_PIECES = {
    "letter": "a", "capital": "A", "space": " ", "newline": "\n", "star": "*", "bracket": "[", "round": "(",
    "quote": '"', "apostrophe": "'", "period": ".", "initial": "a. ", "initials": "A.B. ", "angle": "<<",
    "closing": ">>", "dash": "- ", "divider": "***\n", "star line": "*a\n", "postscript": "p.", "number": "1,",
    "nul": "\0", "growing": "İ", "emoji": "😀", "japanese": "あ", "address": "https://a", "mail": "a@",
    "json": '{"a":', "list": "[1,", "section": "SECTION", "question": "Question 1. A) x\n", "doctor": "Mr. ",
    "word": "river ", "line": "a b c.\n", "blank": "a\n\n", "semi": "a;", "comma": "x, ", "tab": "\t",
    "cedilla": "ş̧", "surrogate": "\ud800", "fence": "```", "dots": "a... ", "hyphens": "--a",
    "palindrome": "level ", "sentence": "The end. ", "marks": "?!", "csv": '"a","b"\n', "indent": " \n",
}  # fmt: skip
_FIELDS: dict[str, dict[str, Any]] = {
    "begin": {"phrase": "a" * 500}, "end": {"phrase": "a" * 500}, "include": {"word": "a" * 300},
    "avoid": {"word": "river a"}, "max_words": {"limit": 5}, "min_words": {"least": 5}, "min_sentences": {"least": 5},
    "exact": {"answer": "a" * 500}, "last_number": {"value": 7}, "steps": {"least": 2},
    "yes_no": {"yes": True, "reason": ["a"]}, "json_items": {"items": ["a"]},
    "list_items": {"category": "animal", "count": 3}, "names_one": {"category": "animal", "apart_from": "a b"},
    "pattern": {"pattern": "(a|aa)+$"},
    "content": {
        "forms": [{"type": "bullets"}, {"type": "upper"}, {"type": "json"}], "reference": "a river",
        "plain": {"type": "exact", "answer": "a"},
    },
}  # fmt: skip


def _checks() -> dict[str, list[Check]]:
    """Checks by name: of every type, and of every instruction with all the arguments that its cases have."""
    found: dict[str, list[Check]] = {}
    for kind in CHECKS:
        if kind != "instruction":
            found[kind] = [parse_check({"type": kind} | _FIELDS.get(kind, {}))]
    arguments = {(c.id, json.dumps(c.kwargs, sort_keys=True)): c.kwargs for c in (*IFEVAL_CASES, *IFBENCH_CASES)}
    for (name, _), kwargs in arguments.items():
        for column in ("repaired", "published"):
            values = {"type": "instruction", "instruction_id": name, "kwargs": kwargs, "column": column}
            found.setdefault(name, []).append(parse_check(values))
    return found


_CHECKS = _checks()


def _worst(checks: list[Check], size: int) -> tuple[float, str]:
    """Seconds of this thread for the slowest verdict, and the text that it was about."""
    worst = (0.0, "")
    for name, piece in _PIECES.items():
        text = (piece * (size // len(piece) + 1))[:size] + "x"
        for check in checks:
            begun = time.thread_time()
            verdict = check.verdict(text, "a prompt")
            worst = max(worst, (time.thread_time() - begun, name))
            assert verdict.span is None or 0 <= verdict.span[0] <= verdict.span[1] <= len(text)
    return worst


def test_every_type_and_instruction_is_attacked() -> None:
    assert _CHECKS.keys() == (CHECKS.keys() - {"instruction"}) | INSTRUCTIONS.keys()


@pytest.mark.parametrize("name", [name for name in _CHECKS if name not in INSTRUCTIONS])
def test_hostile_text_takes_a_check_no_time(name: str) -> None:
    seconds, text = _worst(_CHECKS[name], _SMALL)
    assert seconds < _SECONDS * _SMALL / _SIZE + 0.3, text


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", list(_CHECKS))
def test_a_megabyte_of_hostile_text_takes_a_bounded_time(name: str) -> None:
    seconds, text = _worst(_CHECKS[name], _SIZE)
    print(f"{name}: {seconds:.2f} s, {text}")
    assert seconds < _SECONDS, text
