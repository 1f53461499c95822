"""Texts and constraints that mean to cost more than they say."""

from __future__ import annotations

import json
from typing import Any

from ift_serve.checks import CHECKS
from tests.checks.ifbench.cases import CASES as IFBENCH_CASES
from tests.checks.ifeval.cases import CASES as IFEVAL_CASES

PIECES = {
    "letter": "a", "capital": "A", "space": " ", "newline": "\n", "star": "*", "bracket": "[", "round": "(",
    "quote": '"', "apostrophe": "'", "period": ".", "initial": "a. ", "initials": "A.B. ", "angle": "<<",
    "closing": ">>", "dash": "- ", "divider": "***\n", "star line": "*a\n", "postscript": "p.", "number": "1,",
    "nul": "\0", "growing": "İ", "emoji": "😀", "japanese": "あ", "address": "https://a", "mail": "a@",
    "json": '{"a":', "list": "[1,", "section": "SECTION", "question": "Question 1. A) x\n", "doctor": "Mr. ",
    "word": "river ", "line": "a b c.\n", "blank": "a\n\n", "semi": "a;", "comma": "x, ", "tab": "\t",
    "cedilla": "ş̧", "surrogate": "\ud800", "fence": "```", "dots": "a... ", "hyphens": "--a",
    "palindrome": "level ", "sentence": "The end. ", "marks": "?!", "csv": '"a","b"\n', "indent": " \n",
}  # fmt: skip
"""What a hostile text repeats."""
FIELDS: dict[str, dict[str, Any]] = {
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
"""What checks of a type are asked for; the others have no fields."""


def repeated(piece: str, size: int) -> str:
    """``size`` characters of a piece, and another at the end."""
    return (piece * (size // len(piece) + 1))[:size] + "x"


def constraints() -> dict[str, list[dict[str, Any]]]:
    """Constraints by name: of every type, and of every instruction with all the arguments that its cases have."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in CHECKS:
        if kind != "instruction":
            found[kind] = [{"type": kind} | FIELDS.get(kind, {})]
    arguments = {(c.id, json.dumps(c.kwargs, sort_keys=True)): c.kwargs for c in (*IFEVAL_CASES, *IFBENCH_CASES)}
    for (name, _), kwargs in arguments.items():
        for column in ("repaired", "published"):
            values = {"type": "instruction", "instruction_id": name, "kwargs": kwargs, "column": column}
            found.setdefault(name, []).append(values)
    return found
