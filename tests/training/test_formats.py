"""Files of records as each format's own writer makes them, and files that are something else."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import tarfile
import tracemalloc
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ift_training.data.records import RecordError, parse_record
from ift_training.data.settings import SourceSettings
from ift_training.data.sources import FileSource, SourceError

pyarrow = pytest.importorskip("pyarrow", reason="needs the extra `parquet`")

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda text: bool(text.strip())
)
TABLES = st.lists(st.fixed_dictionaries({"instruction": TEXT, "context": TEXT, "output": TEXT}), min_size=1, max_size=6)
RECORDS = [{"instruction": f"Say {i}.", "context": 'é, "x"; \n', "output": f"{i}\t|"} for i in range(7)]


def read(path: Path, **options: Any) -> list[dict[str, str]]:
    """Instruction, context and output of every record."""
    source = FileSource(SourceSettings(file=path, **options))
    found = []
    for index in range(len(source)):
        record, _ = source.record(index)
        parts = record.prompt[-1].parts
        context = "".join(part.text for part in parts if part.is_context)
        found.append({"instruction": parts[0].text, "context": context, "output": record.response})
    return found


def csv_bytes(rows: Sequence[dict[str, str]], encoding: str = "utf-8", **dialect: Any) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["instruction", "context", "output"], **dialect)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode(encoding)


def parquet(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> Path:
    from pyarrow import Table
    from pyarrow.parquet import write_table

    write_table(Table.from_pylist(list(rows)), path, **options)
    return path


@settings(max_examples=60, deadline=None)
@given(
    rows=TABLES,
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
)
def test_csv_round_trips(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, str]],
    delimiter: str,
    quoting: Any,
    end: str,
    mark: bool,
) -> None:
    if quoting == csv.QUOTE_MINIMAL and end == "\n":
        # This writer leaves a carriage return bare then, and no reader could tell it from a line's end.
        rows = [{name: cell.replace("\r", " .") for name, cell in row.items()} for row in rows]
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    encoding = "utf-8-sig" if mark else "utf-8"
    path.write_bytes(csv_bytes(rows, encoding, delimiter=delimiter, quoting=quoting, lineterminator=end))
    assert read(path) == rows


@settings(max_examples=40, deadline=None)
@given(rows=TABLES, indent=st.sampled_from([None, 2]), escaped=st.booleans())
def test_a_json_list_round_trips(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], indent: int | None, escaped: bool
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=escaped), encoding="utf-8", newline="")
    assert read(path) == rows


@settings(max_examples=20, deadline=None)
@given(rows=TABLES, groups=st.integers(1, 3))
def test_parquet_round_trips(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], groups: int) -> None:
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    assert read(parquet(path, rows, row_group_size=groups)) == rows


def test_quotes_behind_a_backslash_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(csv_bytes(RECORDS, doublequote=False, escapechar="\\", quoting=csv.QUOTE_ALL))
    assert read(path) == RECORDS


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    lines = "".join(json.dumps(r) + "\n" for r in RECORDS).encode()
    contents = [lines, json.dumps(RECORDS).encode(), csv_bytes(RECORDS), parquet(tmp_path / "p", RECORDS).read_bytes()]
    for number, content in enumerate(contents):
        for name in ("data", "a.txt", "a.jsonl", "a.csv"):
            if content is contents[2] and name == "a.jsonl":
                continue  # a name that says JSON decides between broken JSON and a table
            path = tmp_path / f"{number}-{name}"
            path.write_bytes(content)
            assert read(path) == RECORDS, path.name
            packed = tmp_path / f"{number}-{name}.gz"
            packed.write_bytes(gzip.compress(content))
            assert read(packed) == RECORDS, packed.name


def test_a_directory_is_its_files_in_order_and_names_the_rest(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    parquet(tmp_path / "deep" / "b.parquet", RECORDS[3:5])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in RECORDS[:3]).encode()))
    (tmp_path / "z.csv").write_bytes(csv_bytes(RECORDS[5:]))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.jsonl").write_text("{}")
    assert read(tmp_path) == RECORDS
    assert read(tmp_path, limit=4) == RECORDS[:4]
    source = FileSource(SourceSettings(file=tmp_path))
    assert [source.where(i) for i in (0, 2, 3, 6)] == [
        "a.jsonl.gz:1",
        "a.jsonl.gz:3",
        "deep/b.parquet: row 1",
        "z.csv:4",
    ]
    assert any("not read: picture.png" in note for note in source.notes)
    assert any("a.jsonl.gz, deep/b.parquet, z.csv" in note for note in source.notes)


CHAT = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]
BRIEF = {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]}
PARTS = [BRIEF, *({"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in CHAT)]
LAYOUTS: dict[str, tuple[dict[str, Any], list[tuple[str, str]], str]] = {
    "alpaca": ({"instruction": "Add.", "input": "1 2", "output": "3"}, [("user", "Add.\n\n1 2")], "3"),
    "alpaca-bare": ({"instruction": "Greet.", "input": "", "output": "Hi."}, [("user", "Greet.")], "Hi."),
    "dolly": ({"instruction": "Add.", "context": "1 2", "response": "3"}, [("user", "Add.\n\n1 2")], "3"),
    "question": ({"id": 7, "question": "1+1?", "answer": "2"}, [("user", "1+1?")], "2"),
    "prompt": ({"prompt": "1+1?", "completion": "2"}, [("user", "1+1?")], "2"),
    "prompt-messages": ({"prompt": CHAT[:1], "completion": CHAT[1:]}, [("user", "Hello.")], "Hi."),
    "sharegpt": (
        {
            "id": "x",
            "system": "Be brief.",
            "conversations": [
                {"from": "human", "value": "Hello."},
                {"from": "gpt", "value": "Hi."},
                {"from": "human", "value": "And?"},
                {"from": "gpt", "value": "Bye."},
            ],
        },
        [("system", "Be brief."), ("user", "Hello."), ("assistant", "Hi."), ("user", "And?")],
        "Bye.",
    ),
    "sharegpt-system": (
        {
            "conversations": [
                {"from": "system", "value": "S"},
                {"from": "human", "value": "H"},
                {"from": "gpt", "value": "G"},
            ]
        },
        [("system", "S"), ("user", "H")],
        "G",
    ),
    "parts": ({"messages": PARTS}, [("system", "Be brief."), ("user", "Hello.")], "Hi."),
    "nulls": ({"messages": [{**CHAT[0], "name": None}, {**CHAT[1], "tool_calls": None}]}, [("user", "Hello.")], "Hi."),
}


@pytest.mark.parametrize("kind", ["json", "parquet", "csv"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_read_from_every_format(layout: str, kind: str, tmp_path: Path) -> None:
    record, prompt, response = LAYOUTS[layout]
    path = tmp_path / f"a.{kind}"
    if kind == "json":
        path.write_text(json.dumps([record]))
    elif kind == "parquet":
        parquet(path, [record])
    else:
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(record)
            rows.writerow([v if isinstance(v, str) else json.dumps(v) for v in record.values()])
    found, _ = FileSource(SourceSettings(file=path)).record(0)
    assert [(m.role, m.content) for m in found.prompt] == prompt
    assert found.response == response


IMAGE = {"type": "image_url", "image_url": {"url": "x"}}


@pytest.mark.parametrize(
    ("record", "field", "said"),
    [
        ({"messages": [{"role": "user", "content": [IMAGE]}, CHAT[1]]}, "messages[0].content[0].type", "'image_url'"),
        ({"messages": [CHAT[0], {"role": "tool", "content": "x"}]}, "messages[1].role", "'tool'"),
        ({"messages": [CHAT[0], {**CHAT[1], "weight": 0}]}, "messages[1].weight", "not known"),
        ({"messages": [{**CHAT[0], "value": "x"}, CHAT[1]]}, "messages[0].value", "second content"),
        ({"conversations": [{"from": "observation", "value": "x"}]}, "messages[0].role", "'observation'"),
        ({"messages": [{"role": "system", "content": "x"}, *CHAT], "system": "y"}, "system", "too"),
        ({"prompt": CHAT[:1], "completion": "x"}, "completion", "no list"),
        ({"prompt": "x", "completion": CHAT[1:]}, "prompt", "no list"),
        ({"instruction": "x", "output": "y", "answer": "z"}, "answer", "the same as output"),
        ({"instruction": "x", "output": "y", "contxt": "z"}, "contxt", "rename"),
        ({"prompt": "x", "chosen": "y", "rejected": "z"}, "chosen", "rename"),
        ({"input": "x", "output": "y"}, "instruction", "missing"),
    ],
)
def test_what_does_not_fit_is_named_with_its_field(record: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_record(record)
    assert caught.value.field == field and said in caught.value.message


def test_every_bad_row_is_named_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'question,answer\n"two\nlines",yes\nonly\n"wrong"x,no\n\xff,no\nlast,yes\n"never closed,no\nend,yes\n'
    )
    source = FileSource(SourceSettings(file=path))
    found: list[str] = []
    for index in range(len(source)):
        try:
            found.append(source.record(index)[0].prompt[-1].content)
        except RecordError as error:
            found.append(f"{source.where(index)} {error}")
    assert [entry.split(":")[1].split(" ")[0] if ":" in entry else entry for entry in found] == [
        "two\nlines",
        "4",
        "5",
        "6",
        "last",
        "8",
        "end",
    ]
    assert "1 cells, not 2" in found[1] and "not CSV" in found[2] and "UTF-8" in found[3] and "not CSV" in found[5]


def test_elements_that_are_no_records_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[\n {"question": "x", "answer": "y"},\n 3,\n {"a" 1},\n [1, "]"]\n]\n')
    source = FileSource(SourceSettings(file=path))
    assert source.record(0)[0].response == "y"
    for index, line in ((1, 3), (2, 4), (3, 5)):
        assert source.where(index) == f"a.json:{line}"
        with pytest.raises(RecordError):
            source.record(index)


def test_elements_that_share_a_line_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"question": "x", "answer": "y"}, 3,\n 4,\n 5, 6]')
    source = FileSource(SourceSettings(file=path))
    assert [source.where(index) for index in (0, 1, 2, 3, 4)] == [
        "a.json:1, element 1", "a.json:1, element 2", "a.json:2", "a.json:3, element 4", "a.json:3, element 5"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "does not end"),
        ('[{"a": 1}', "does not end"),
        ('[{"a": "x', "does not end"),
        ("[]", "no records"),
        ('[{"a": 1}}', "closes nothing"),
        ("[{}] x", "goes on after"),
        ("[{},,{}]", "comma"),
    ],
)
def test_a_broken_list_is_an_error(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(SourceError, match=said):
        FileSource(SourceSettings(file=tmp_path / "a.json"))


def _zip(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x")


def _tar(path: Path) -> None:
    (path.parent / "inside").write_text("x")
    with tarfile.open(path, "w") as archive:
        archive.add(path.parent / "inside", "inside")


WRONG: dict[str, tuple[Any, str]] = {
    "empty": (lambda path: path.touch(), "is empty"),
    "blank": (lambda path: path.write_text(" \n\n"), "blank lines only"),
    "zip": (lambda path: _zip(path, "a.jsonl"), "zip archive; unpack"),
    "xlsx": (lambda path: _zip(path, "xl/workbook.xml"), "Excel workbook; save the sheet as CSV"),
    "png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40)), "PNG picture"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(RECORDS)), "a pickle"),
    "old-pickle": (lambda path: path.write_bytes(pickle.dumps(RECORDS, protocol=0)), "a pickle"),
    "torch": (lambda path: torch.save({"a": torch.ones(2)}, path), "torch.save"),
    "numpy": (lambda path: np.save(path.open("wb"), np.ones(3)), "NumPy array"),
    "safetensors": (lambda path: save_file({"a": torch.ones(2)}, path), "safetensors"),
    "utf-16": (lambda path: path.write_text("[{}]", encoding="utf-16"), "UTF-16"),
    "utf-16-bare": (lambda path: path.write_bytes("instruction,output\na,b".encode("utf-16-le")), "UTF-16"),
    "tar": (_tar, "tar archive"),
    "binary": (lambda path: path.write_bytes(bytes(range(256)) * 9), "binary file"),
    "page": (lambda path: path.write_text("<!DOCTYPE html><html></html>"), "web page"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "text": (lambda path: path.write_text("once upon a time\nthere was\n"), "plain text"),
    "pretty": (lambda path: path.write_text(json.dumps(RECORDS[0], indent=2)), "over several lines"),
    "damaged-gzip": (lambda path: path.write_bytes(gzip.compress(b"x" * 9999)[:-9]), "damaged or cut off"),
    "gzip-of-png": (lambda path: path.write_bytes(gzip.compress(b"\x89PNG" + bytes(40))), "PNG picture"),
    "empty-gzip": (lambda path: path.write_bytes(gzip.compress(b"")), "is empty"),
    "damaged-parquet": (lambda path: path.write_bytes(b"PAR1" + bytes(40)), "cannot be read"),
    "directory": (lambda path: path.mkdir(), "without records, it is empty"),
    "pipe": (lambda path: os.mkfifo(path), "pipe or a device"),
    "doubled": (lambda path: path.write_text("question,question\na,b\nc,d\n"), "twice"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_the_wrong_kind_of_file_is_named_as_what_it_is(kind: str, tmp_path: Path) -> None:
    make, said = WRONG[kind]
    make(path := tmp_path / "data")
    with pytest.raises(SourceError, match=said):
        FileSource(SourceSettings(file=path))


def test_parquet_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "a.parquet", RECORDS)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(SourceError, match=r"ift-serve\[parquet\]"):
        FileSource(SourceSettings(file=path))


def test_columns_that_hold_no_text_are_not_trained_on(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [{"question": "x", "answer": b"y"}, {"question": "x", "answer": b"\xff"}])
    source = FileSource(SourceSettings(file=path))
    assert source.record(0)[0].response == "y"
    with pytest.raises(RecordError, match="output: is an object"):
        source.record(1)


@pytest.mark.parametrize("kind", ["array", "csv", "gzip", "parquet"])
def test_large_files_are_not_held_in_memory(kind: str, tmp_path: Path) -> None:
    rows = [{"instruction": "Say it.", "context": "c", "output": str(i) + "x" * 4000} for i in range(3000)]
    path = tmp_path / "big"
    if kind == "array":
        path.write_text(json.dumps(rows))
    elif kind == "csv":
        path.write_bytes(csv_bytes(rows))
    elif kind == "gzip":
        path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode(), 1))
    else:
        parquet(path, rows, row_group_size=200)
    import pyarrow.parquet

    assert pyarrow.parquet
    tracemalloc.start()
    source = FileSource(SourceSettings(file=path))
    assert source.record(2999)[0].response == rows[2999]["output"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(source) == 3000 and peak < 6_000_000


def test_unpacked_files_go_and_workers_read_them_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    source = FileSource(SourceSettings(file=parquet(tmp_path / "a.parquet", RECORDS)))
    copy = pickle.loads(pickle.dumps(source))
    assert copy.record(3)[0] == source.record(3)[0]
    del copy
    assert len(list((tmp_path / "spool").iterdir())) == 1
    del source
    assert not list((tmp_path / "spool").iterdir())
