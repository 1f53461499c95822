"""Files of others as ours: every layout, what does not fit by line, field and reason, and nothing lost on the way."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.checks import parse_checks
from ift_serve.text.prompt import Message, Part
from ift_training.data.convert import Conversion, convert
from ift_training.data.dropped import dropped_records
from ift_training.data.hub import hub_directory, looks_like_name
from ift_training.data.lines import line_of
from ift_training.data.records import Record, parse_line, parse_record
from ift_training.data.settings import SourceSettings
from ift_training.data.sources import FileSource
from ift_training.data.sources.base import SourceError

_SINGLE = {"instruction": "Sort these.", "context": "b a", "output": "a b"}
_CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "alpaca": ({"instruction": "Sort these.", "input": "b a", "output": "a b"}, _SINGLE),
    "alpaca without input": (
        {"instruction": "Say hi.", "input": "", "output": "Hi"}, {"instruction": "Say hi.", "output": "Hi"},
    ),
    "dolly": ({"instruction": "Sort these.", "context": "b a", "response": "a b"}, _SINGLE),
    "question and answer": (
        {"question": "Who?", "answer": "Anna", "id": 7}, {"instruction": "Who?", "output": "Anna"},
    ),
    "prompt and completion": (
        {"prompt": "Say hi.", "completion": "Hi"}, {"instruction": "Say hi.", "output": "Hi"},
    ),
    "prompt and completion, as messages": (
        {"prompt": _CHAT[:1], "completion": _CHAT[1:]}, {"instruction": "Hi", "output": "Ho"},
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
        {"instruction": "Hi", "output": "Ho"},
    ),
    "messages": ({"messages": _CHAT}, {"instruction": "Hi", "output": "Ho"}),
    "messages of two turns": ({"messages": _CHAT * 2}, {"messages": _CHAT * 2}),
    "messages with a system": (
        {"messages": [{"role": "system", "content": "Be brief."}, *_CHAT]},
        {"system": "Be brief.", "instruction": "Hi", "output": "Ho"},
    ),
    "self-instruct": (
        {
            "id": "seed_task_3", "name": "sort", "instruction": "Sort these.", "is_classification": False,
            "instances": [{"input": "b a", "output": "a b"}],
        },
        _SINGLE,
    ),
    "checks": (
        {"instruction": "Say hi.", "output": "HI", "checks": [{"type": "upper"}]},
        {"instruction": "Say hi.", "output": "HI", "checks": [{"type": "upper"}]},
    ),
}  # fmt: skip


def _converted(source: Path, output: Path, **settings: Any) -> tuple[list[dict[str, Any]], Conversion]:
    listed = output.with_suffix(".dropped")
    with dropped_records(listed) as dropped:
        found = convert(SourceSettings(file=source, **settings), output, dropped)
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()], found


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_becomes_ours(tmp_path: Path, name: str) -> None:
    theirs, ours = LAYOUTS[name]
    (source := tmp_path / "theirs.jsonl").write_text(json.dumps(theirs) + "\n")
    lines, found = _converted(source, tmp_path / "ours.jsonl")
    assert lines == [ours] and (found.read, found.written, found.refused) == (1, 1, 0)


def _as_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


_ROWS = [{"question": f"Who is {n}?", "answer": f'Anna, "the {n}th"\nof her name'} for n in range(7)]


@pytest.mark.parametrize("form", ["csv", "parquet", "json", "jsonl.gz", "directory"])
def test_every_form_of_file_gives_the_same_records(tmp_path: Path, form: str) -> None:
    source = tmp_path / f"theirs.{form}"
    if form == "csv":
        _as_csv(source, _ROWS)
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(_ROWS), source)
    elif form == "json":
        source.write_text(json.dumps(_ROWS))
    elif form == "jsonl.gz":
        source.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in _ROWS).encode()))
    else:
        source.mkdir()
        _as_csv(source / "a.csv", _ROWS[:3])
        (source / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _ROWS[3:]))
    lines, _ = _converted(source, tmp_path / "ours.jsonl")
    assert lines == [{"instruction": row["question"], "output": row["answer"]} for row in _ROWS]


def test_what_does_not_fit_is_named_by_line_field_and_reason(tmp_path: Path) -> None:
    wrong = [
        '{"instruction": "a", "output": "b"}',
        "not json",
        '{"instruction": "a"}',
        '{"instruction": "a", "output": 5}',
        '{"instruction": "a", "output": "b", "colour": "red"}',
        '{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}',
        '{"instruction": "a", "instances": [{"input": "", "output": "b"}, {"input": "", "output": "c"}]}',
        '{"instruction": "a", "output": "b", "checks": [{"type": "upper"}]}',
    ]
    (source := tmp_path / "theirs.jsonl").write_text("\n\n".join(wrong))
    lines, found = _converted(source, tmp_path / "ours.jsonl")
    assert len(lines) == 1 and found.refused == 7
    listed = [json.loads(line) for line in (tmp_path / "ours.dropped").read_text().splitlines()]
    assert [(each["place"], each["field"]) for each in listed] == [
        ("theirs.jsonl:3", "line"), ("theirs.jsonl:5", "output"), ("theirs.jsonl:7", "output"),
        ("theirs.jsonl:9", "colour"), ("theirs.jsonl:11", "messages[1].role"), ("theirs.jsonl:13", "instances"),
        ("theirs.jsonl:15", "output"),
    ]  # fmt: skip
    assert all(each["reason"] for each in listed)
    assert found.refusals[1] == "theirs.jsonl:5: output: is missing"


def test_what_was_there_stays_where_nothing_fits(tmp_path: Path) -> None:
    (output := tmp_path / "ours.jsonl").write_text("earlier")
    (source := tmp_path / "theirs.jsonl").write_text('{"colour": "red"}\n')
    with pytest.raises(SourceError, match=r"no record fits; the first: theirs\.jsonl:1: colour"):
        convert(SourceSettings(file=source), output)
    assert output.read_text() == "earlier" and sorted(p.name for p in tmp_path.iterdir()) == [
        "ours.jsonl", "theirs.jsonl",
    ]  # fmt: skip


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (source := tmp_path / "theirs.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    with pytest.raises(SourceError, match="cannot be written"):
        convert(SourceSettings(file=source), tmp_path / "nowhere" / "ours.jsonl")


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
_PARTS = st.lists(st.builds(Part, _TEXT, st.booleans()), min_size=1, max_size=3).map(tuple)
_TURNS = st.lists(st.tuples(_PARTS, _TEXT), max_size=2)


@st.composite
def _records(draw: st.DrawFn) -> Record:
    messages = [Message("system", (Part(draw(_TEXT)),))] if draw(st.booleans()) else []
    for parts, answer in draw(_TURNS):
        messages += [Message("user", parts), Message("assistant", (Part(answer),))]
    shapes = st.one_of(
        _PARTS,
        st.tuples(st.builds(Part, _TEXT), st.just(Part("\n\n")), st.builds(Part, _TEXT, st.just(True))),
        st.tuples(st.builds(Part, _TEXT)),
    )
    checks = parse_checks([{"type": "max_words", "limit": 99}]) if draw(st.booleans()) else ()
    return Record((*messages, Message("user", draw(shapes))), draw(_TEXT), checks=checks)


@given(_records())
@settings(max_examples=200, deadline=None)
def test_a_record_that_is_written_is_read_as_it_was(record: Record) -> None:
    read = parse_line(json.dumps(line_of(record)))
    assert read == record and read.key == record.key


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_trainer_reads_theirs_and_ours_as_the_same_record(tmp_path: Path, name: str) -> None:
    theirs, ours = LAYOUTS[name]
    assert parse_record(theirs) == parse_record(ours)


def test_a_data_set_of_the_hub_is_read_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a cache that a download has filled, as there is no network here."""
    commit = "0" * 40
    folder = tmp_path / "hub" / "datasets--owner--talk"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (snapshot := folder / "snapshots" / commit).mkdir(parents=True)
    (snapshot / "train.jsonl").write_text('{"question": "Who?", "answer": "Anna"}\n')
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = hub_directory("owner/talk")
    assert FileSource(SourceSettings(file=found)).record(0)[0].response == "Anna"
    with pytest.raises(SourceError, match="owner/other: there is no such file, and the data set is neither"):
        hub_directory("owner/other")
    assert looks_like_name("owner/talk") and not looks_like_name("./data/talk.jsonl")


def test_the_command_writes_and_says_what_does_not_fit(tmp_path: Path) -> None:
    rows = '{"q": "Who?", "answer": "Anna", "score": 3}\n{"q": "Who?"}\n'
    (source := tmp_path / "theirs.jsonl").write_text(rows)
    command = [
        sys.executable, "-c", "from ift_serve.cli import main; main()", "data", "convert", str(source),
        str(tmp_path / "ours.jsonl"), "--rename", "q=question", "--ignore", "score",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True, timeout=120)
    assert "1 of 2 records written" in done.stdout
    assert "theirs.jsonl:2: output: is missing" in done.stderr
    (listed,) = (tmp_path / "ours.jsonl.dropped.jsonl").read_text().splitlines()
    assert json.loads(listed)["field"] == "output"
    missing = [*command[:5], str(tmp_path / "nowhere.jsonl"), str(tmp_path / "new.jsonl")]
    failed = subprocess.run(missing, capture_output=True, text=True, check=False, timeout=120)
    assert failed.returncode == 1 and "nowhere.jsonl" in failed.stderr and not list(tmp_path.glob("new*"))
    strict = subprocess.run([*command, "--strict", "--json"], capture_output=True, text=True, check=False, timeout=120)
    assert strict.returncode == 2 and json.loads(strict.stdout)["refused"] == 1
