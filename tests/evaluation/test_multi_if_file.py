"""A file laid out as Multi-IF's own, from the command to the report: CSV with JSON in it, languages, three turns."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ift_serve.cli import app
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.tasks.record_file import read_records
from ift_serve.evaluation.tasks.registry import build_task

COMMA, LOWER, WORDS = "punctuation:no_comma", "change_case:english_lowercase", "length_constraints:number_words"
ENDS, QUOTED, POSTSCRIPT = "startend:end_checker", "startend:quotation", "detectable_content:postscript"
_AT_LEAST = {"relation": "at least", "num_words": 3}
CONVERSATIONS: list[tuple[str, str, list[tuple[str, str, dict[str, Any]]]]] = [
    (
        "1:1:en",
        "English",
        [
            ("Describe a morning by a lake. Do not use any commas.", COMMA, {}),
            ("Write the whole answer in small letters as well.", LOWER, {}),
            ('Also say at least three words, "no more, no less" is fine.', WORDS, _AT_LEAST),
        ],
    ),
    (
        "2:1:fr",
        "French",
        [
            ("Décris un matin au bord d'un lac.\nSans virgules, s'il te plaît.", COMMA, {}),
            ("Termine par la phrase : Voilà tout.", ENDS, {"end_phrase": "Voilà tout."}),
            ("Mets toute la réponse entre guillemets.", QUOTED, {}),
        ],
    ),
    (
        "3:1:hi",
        "Hindi",
        [
            ("झील के किनारे की सुबह का वर्णन करो, अल्पविराम के बिना।", COMMA, {}),
            ("अंत में P.S. से शुरू होने वाला एक नोट जोड़ो।", POSTSCRIPT, {"postscript_marker": "P.S."}),
        ],
    ),
]


def _row(key: str, language: str, turns: list[tuple[str, str, dict[str, Any]]]) -> dict[str, str]:
    """Instructions of later turns repeat those before; what a turn does not have is empty."""
    row = {"turns": json.dumps([prompt for prompt, _, _ in turns], ensure_ascii=False), "responses": "[]"}
    for number in range(1, 4):
        so_far = turns[:number] if number <= len(turns) else []
        prompt = json.dumps({"role": "user", "content": so_far[-1][0]}, ensure_ascii=False) if so_far else ""
        row[f"turn_{number}_prompt"] = prompt
        row[f"turn_{number}_instruction_id_list"] = json.dumps([name for _, name, _ in so_far])
        row[f"turn_{number}_kwargs"] = json.dumps([json.dumps(given) for _, _, given in so_far])
    return row | {"key": key, "turn_index": "0", "language": language}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """As pandas writes it: an index without a name in front."""
    path = tmp_path / "multiIF.csv"
    rows = [{"": str(number), **_row(*one)} for number, one in enumerate(CONVERSATIONS)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_its_rows_are_those_of_json_lines(published: Path, tmp_path: Path) -> None:
    lines = tmp_path / "same.jsonl"
    lines.write_text("\n".join(json.dumps(_row(*one)) for one in CONVERSATIONS), encoding="utf-8")
    read = [build_task("multi_if", {"multi_if": path}).items() for path in (published, lines)]
    assert read[0] == read[1]
    french = read[0][1]
    assert french.labels["language"] == "French" and "\n" in french.source[0].prompt
    assert french.families == (COMMA, COMMA, ENDS, COMMA, ENDS, QUOTED)


def test_it_is_asked_judged_and_reported_turn_by_turn(published: Path, embedded_server: str, tmp_path: Path) -> None:
    command = ["eval", "--target", embedded_server, "--tasks", "multi_if", "--data", f"multi_if={published}", "--json"]
    done = CliRunner().invoke(app, [*command, "--decoding", "max_new_tokens=24", "--report", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    saved = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert {row["key"] for row in saved["rows"]} == {key for key, _, _ in CONVERSATIONS}
    for row, (_, _, turns) in zip(sorted(saved["rows"], key=lambda row: row["key"]), CONVERSATIONS, strict=True):
        assert len(row["earlier"]) == len(turns) - 1
        for verdicts in row["verdicts"].values():
            by_turn = [[v["family"] for v in verdicts if v["turn"] == number + 1] for number in range(len(turns))]
            assert by_turn == [[name for _, name, _ in turns[: number + 1]] for number in range(len(turns))]
    counted = {(turn["column"], turn["turn"]): turn["prompts"] for turn in found["turns"]}
    assert len(counted) == 4 * 3
    assert {(turn, prompts) for (_, turn), prompts in counted.items()} == {(1, 3), (2, 3), (3, 2)}
    assert "multi_if" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,"2', "file.csv:2: is not CSV"),
        ("a,b\n1,2,3\n", "file.csv:2: has 3 fields; the header has 2"),
        ("a,a\n1,2\n", "file.csv:1: the header names a column twice"),
        ("a,,c\n1,2,3\n", "file.csv:1: the header names a column twice, or not at all"),
    ],
)
def test_what_is_wrong_with_a_csv_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EvaluationError, match=message):
        list(read_records(path))


def test_long_fields_line_breaks_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file.CSV"
    long = "x" * 500_000
    path.write_bytes(f'\ufeffa,b\r\n"one\r\ntwo","{long}"\r\n\r\n,\r\n'.encode())
    assert list(read_records(path)) == [(3, {"a": "one\r\ntwo", "b": long}), (5, {"a": "", "b": ""})]
