"""Records that are not used: each is counted, named, and too many of them are an error."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError
from rich.console import Console

from ift_serve.text.prompt import PromptRenderer
from ift_training.collator import WithOthers
from ift_training.data.dropped import dropped_records
from ift_training.data.encode import Encoder
from ift_training.data.lost import check_lost
from ift_training.data.record_error import Problem
from ift_training.data.selection import prepare
from ift_training.data.settings import SourceSettings, ValidationSettings
from ift_training.data.sources import SourceError
from tests.support.models import tiny_tokenizer
from tests.support.sources import data, numbered, write


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(PromptRenderer(tiny_tokenizer()), 128)


def test_what_is_dropped_is_reported_with_its_place(tmp_path: Path, encoder: Encoder) -> None:
    path = write(
        tmp_path / "mixed.jsonl",
        [
            {"instruction": "Say yes.", "output": "yes"},
            "not json",
            "",
            {"instruction": "Say it.", "output": "long " * 200},
            {"instruction": "Say no."},
            {"instruction": "Say it again.", "output": "long " * 200},
            {"instruction": "Shout.", "output": "quiet", "checks": [{"type": "upper"}]},
        ],
    )
    report = data(encoder, SourceSettings(file=path)).report
    source = report.sources[0]
    assert (source.read, source.kept, report.dropped) == (6, 1, 5)
    assert {kind: found.count for kind, found in source.dropped.items()} == {
        (Problem.UNREADABLE, "line"): 1,
        (Problem.TOO_LONG, "record"): 2,
        (Problem.MISSING, "output"): 1,
        (Problem.FAILS_CHECK, "output"): 1,
    }
    told = json.loads(json.dumps(report.to_json()))["sources"][0]
    (long,) = (dropped for dropped in told["dropped"] if dropped["problem"] == "too long")
    assert long["count"] == 2 and long["places"] == ["mixed.jsonl:4", "mixed.jsonl:6"]
    lengths = [
        int(found) for found in re.findall(r"is too long: (\d+) tokens, max_length is 128 ", str(report.reasons()))
    ]
    assert lengths and any("(mixed.jsonl:4; mixed.jsonl:6)" in line for line in report.reasons())
    # What the message says is enough, is.
    enough = told["max_length_for_95_percent"]
    assert 0 <= enough - max(source.lengths) < 8
    roomy = data(Encoder(encoder.renderer, enough), SourceSettings(file=path)).report.sources[0]
    assert (roomy.kept, roomy.lost, roomy.max_length_for(0.95)) == (3, 3, None)


def test_a_source_with_nothing_left_is_an_error_that_says_why(tmp_path: Path, encoder: Encoder) -> None:
    path = write(tmp_path / "a.jsonl", ["{}", "{}"])
    with pytest.raises(SourceError, match=r"dropped 2, instruction is missing \(a.jsonl:1; a.jsonl:2\)"):
        data(encoder, SourceSettings(file=path))
    (tmp_path / "empty.jsonl").touch()
    for name, said in (("empty.jsonl", "is empty"), ("missing.jsonl", "cannot be read")):
        with pytest.raises(SourceError, match=said):
            data(encoder, SourceSettings(file=tmp_path / name))


def test_a_source_with_nothing_left_beside_others_is_an_error_too(tmp_path: Path, encoder: Encoder) -> None:
    good = write(tmp_path / "good.jsonl", [{"instruction": "Say it.", "output": "it"}])
    bad = write(tmp_path / "bad.jsonl", [{"instruction": "Say it.", "answer_text": "it"}])
    with pytest.raises(SourceError, match=r"sources\.1: no record of bad .*map it with the source's `rename`"):
        data(encoder, SourceSettings(file=good), SourceSettings(file=bad))


def test_a_loss_above_the_share_allowed_is_an_error_that_names_the_switch(tmp_path: Path, encoder: Encoder) -> None:
    records: list[Any] = [{"instruction": f"Say {i}.", "output": str(i)} for i in range(10)]
    path = write(tmp_path / "a.jsonl", [*records, *({"instruction": "Say it."} for _ in range(90))])
    report = data(encoder, SourceSettings(file=path)).report
    wanted = r"sources\.0: 90 of 100 records of a are lost \(90 %\).*--set max_lost=0\.9\. .*output is missing \(a"
    with pytest.raises(SourceError, match=wanted):
        check_lost(report, 0.5)
    check_lost(report, 0.9)
    with pytest.raises(SourceError):
        check_lost(report, 0.89)


def test_the_table_colours_what_is_lost_and_fits_a_terminal(tmp_path: Path, encoder: Encoder) -> None:
    records: list[Any] = [{"instruction": f"Say {i}.", "output": str(i)} for i in range(100)]
    few = write(tmp_path / "few-records-are-lost-here.jsonl", [*records, "{}"])
    many = write(tmp_path / "many.jsonl", [*records, *["{}"] * 900])
    shown = Console(width=80, force_terminal=True, color_system="standard", file=io.StringIO())
    shown.print(data(encoder, SourceSettings(file=few), SourceSettings(file=many)).report.table())
    text = cast("io.StringIO", shown.file).getvalue()
    assert re.search(r"\x1b\[33m *1 \(<1 %\)", text) and re.search(r"\x1b\[1;31m *900 \(90 %\)", text)
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert all(len(line) <= 80 for line in plain.splitlines()) and "dropped" in plain.splitlines()[2]


def test_the_advised_length_keeps_what_it_says(tmp_path: Path, encoder: Encoder) -> None:
    records = [{"instruction": "Say it.", "output": "a b " * count} for count in range(1, 101)]
    source = SourceSettings(file=write(tmp_path / "a.jsonl", records))
    renderer = encoder.renderer
    found = data(Encoder(renderer, 64), source).report.sources[0]
    most, every = found.max_length_for(0.95), found.max_length_for(1.0)
    assert most is not None and every is not None
    assert f"max_length {most} would keep 95 % of them, {every} would keep all" in " ".join(found.advice())
    assert data(Encoder(renderer, most), source).report.sources[0].kept >= 95
    assert data(Encoder(renderer, most - 8), source).report.sources[0].kept < 95
    assert data(Encoder(renderer, every), source).report.sources[0].kept == 100


def test_validation_sources_and_tasks_with_nothing_left_are_errors(tmp_path: Path, encoder: Encoder) -> None:
    good = SourceSettings(file=numbered(tmp_path / "good.jsonl", 4))
    bad = SourceSettings(file=write(tmp_path / "bad.jsonl", ["{}"]))
    with pytest.raises(SourceError, match=r"validation\.sources\.0: no record of bad \(validation\) can be used"):
        prepare([good], ValidationSettings(sources=[bad]), encoder, 0)
    shortest = {
        name: min(data(encoder, SourceSettings(procedural=[name], count=99)).report.sources[0].lengths)
        for name in ("combined", "repeat")
    }
    (little, least), (_, most) = sorted(shortest.items(), key=lambda item: item[1])
    assert least < most
    both = SourceSettings(procedural=list(shortest), count=99)
    with pytest.raises(SourceError, match=r"no record of the task .* can be used") as caught:
        data(Encoder(encoder.renderer, most - 1), both)
    assert f"task {little}" not in str(caught.value)
    with pytest.raises(ValidationError, match="count: 2 is less than the 3 families"):
        SourceSettings(procedural=["sort", "reverse", "repeat"], count=2)


def test_a_breaking_answer_that_does_not_fit_is_left_out_and_counted(tmp_path: Path, encoder: Encoder) -> None:
    path = write(
        tmp_path / "a.jsonl", [{"instruction": "Say x.", "output": "x", "checks": [{"type": "max_words", "limit": 40}]}]
    )
    source = SourceSettings(file=path)
    length = data(encoder, source).report.longest
    found = data(Encoder(encoder.renderer, length + 4), source, violations=True)
    assert found.train[0].violating is None
    assert (found.report.sources[0].judged, found.report.sources[0].contrasted) == (1, 0)
    assert "1 of 1 records with a check have no answer that breaks it" in found.report.reasons()[-1]


def test_a_file_with_as_many_mistakes_as_records_is_told_in_a_few_lines(tmp_path: Path, encoder: Encoder) -> None:
    records: list[Any] = [{"instruction": "Say it.", "output": "it", f"column {i}": 1} for i in range(30)]
    report = data(
        encoder, SourceSettings(file=write(tmp_path / "a.jsonl", [*records, records[0] | {"column 0": None}]))
    ).report
    assert report.dropped == 30 and len(report.reasons()) == 10
    assert report.reasons()[-2] == "a: dropped 22 for 22 more reasons"
    assert report.reasons()[-1] == "a: --dropped FILE names each of the 30 with its place, field and reason"


def test_a_file_names_every_dropped_record(tmp_path: Path, encoder: Encoder) -> None:
    good, long = {"instruction": "Say it.", "output": "it"}, {"instruction": "Say it.", "output": "long " * 200}
    lines = [good, "{}", long, *(["{}"] * 6), "not json", {**good, "more": 1}, good]
    sources = [SourceSettings(file=write(tmp_path / f"{name}.jsonl", lines)) for name in "ab"]
    with dropped_records(tmp_path / "dropped.jsonl") as listed:
        report = prepare(sources, ValidationSettings(share=0), encoder, 0, dropped=listed).report
    found = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert len(found) == report.dropped == 20
    for source, name in (("sources.0", "a"), ("sources.1", "b")):
        own = [line for line in found if line["source"] == source]
        assert [line["place"] for line in own] == [f"{name}.jsonl:{number}" for number in range(2, 12)]
        assert [line["field"] for line in own] == ["instruction", "record", *["instruction"] * 6, "line", "more"]
        assert "is too long: " in own[1]["reason"] and own[1]["problem"] == "too long"
    told = report.sources[0].reasons()
    assert told[0] == "a: dropped 7, instruction is missing (a.jsonl:2; a.jsonl:4; a.jsonl:5 and 4 more)"
    assert told[-1] == f"a: {tmp_path / 'dropped.jsonl'} names each of the 10 with its place, field and reason"
    with pytest.raises(SourceError, match=r"--dropped .*: cannot be written"), dropped_records(tmp_path / "no/file"):
        pass


def test_records_without_room_for_a_wrong_answer_are_counted_and_too_many_are_an_error(
    tmp_path: Path, encoder: Encoder
) -> None:
    short = [{"instruction": f"Say {i}.", "output": f"{i} it is {i} it is"} for i in range(3)]
    long = [{"instruction": "Say " + "x" * 60 + f"{i}.", "output": "y"} for i in range(9)]
    source = SourceSettings(file=write(tmp_path / "a.jsonl", [*short, *long]))
    length = data(encoder, source).report.longest
    tight = Encoder(encoder.renderer, length)
    report = data(tight, source, violations=True).report
    found = report.sources[0]
    # The long ones have room for "y", which is their own answer, and for nothing longer.
    assert (found.kept, found.unpaired) == (12, 9) and found.to_json()["unpaired"] == 9
    assert data(tight, source).report.sources[0].unpaired == 0
    assert f"max_length {found.length_to_pair} would give each of them one" in found.advice()[-1]
    with pytest.raises(SourceError, match=r"sources\.0: 9 of 12 records of a have no wrong answer .* max_lost=0\.75"):
        check_lost(report, 0.5)
    check_lost(report, 0.75)
    for enough, left in ((found.length_to_pair, 0), (found.length_to_pair - 1, 9)):
        roomy = Encoder(encoder.renderer, enough)
        assert data(roomy, source, violations=True).report.sources[0].unpaired == left
        pairs = WithOthers(data(roomy, source, violations=True).train, enough)
        assert sum(pairs[i].other is None for i in range(12)) == left
