"""Sources as a dataset: weights, order, validation, what is dropped, and files that are not read into memory."""

from __future__ import annotations

import io
import json
import pickle
import re
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

from ift_serve.text.prompt import PromptRenderer
from ift_training.collator import WithOthers
from ift_training.data.dropped import dropped_records
from ift_training.data.encode import Encoder
from ift_training.data.lost import check_lost
from ift_training.data.mixture import ExampleDataset
from ift_training.data.procedural import families, split_of
from ift_training.data.record_error import Problem
from ift_training.data.selection import TrainingData, prepare
from ift_training.data.settings import SourceSettings, ValidationSettings
from ift_training.data.shuffle import Permutation
from ift_training.data.sources import FileSource, ProceduralSource, SourceError
from ift_training.data.sources.mapped import MappedFile
from tests.support.models import tiny_tokenizer


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(PromptRenderer(tiny_tokenizer()), 128)


def write(path: Path, records: Sequence[Any]) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def numbered(path: Path, count: int) -> Path:
    return write(path, [{"instruction": f"Say {i}.", "output": str(i)} for i in range(count)])


def data(encoder: Encoder, *sources: SourceSettings, share: float = 0.0, seed: int = 0, **other: Any) -> TrainingData:
    return prepare(sources, ValidationSettings(share=share), encoder, seed, **other)


def answers(dataset: ExampleDataset) -> list[str]:
    return [dataset.record(index)[0].response for index in range(len(dataset))]


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 400), key=st.integers())
def test_a_permutation_is_one(n: int, key: int) -> None:
    order = Permutation(n, key)
    assert sorted(order[i] for i in range(n)) == list(range(n))


def test_permutations_of_other_keys_differ_and_mix() -> None:
    first, second = ([Permutation(1000, key)[i] for i in range(1000)] for key in (1, 2))
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 10
    assert abs(sum(first[:500]) / 500 - 499.5) < 60


def test_weights_are_respected_over_epochs(tmp_path: Path, encoder: Encoder) -> None:
    often = SourceSettings(file=numbered(tmp_path / "often.jsonl", 10), weight=2.5)
    rare = SourceSettings(
        file=write(tmp_path / "rare.jsonl", [{"instruction": f"Shout {i}.", "output": f"r{i}"} for i in range(8)]),
        weight=0.25,
    )
    dataset = data(encoder, often, rare).train
    assert len(dataset) == 25 + 2
    seen: Counter[str] = Counter()
    for epoch in range(4):
        dataset.set_epoch(epoch)
        tasks = Counter(dataset[i].task_name for i in range(len(dataset)))
        assert tasks == {"often": 25, "rare": 2}
        seen.update(answers(dataset))
    assert {seen[str(i)] for i in range(10)} == {10}
    assert {seen[f"r{i}"] for i in range(8)} == {1}


def test_validation_is_neither_weighted_nor_shuffled(tmp_path: Path, encoder: Encoder) -> None:
    found = data(encoder, SourceSettings(file=numbered(tmp_path / "a.jsonl", 20), weight=3.0), share=0.25)
    assert (len(found.train), len(found.validation)) == (45, 5)
    held = [int(answer) for answer in answers(found.validation)]
    assert held == sorted(held) and not set(held) & {int(answer) for answer in answers(found.train)}


def test_the_order_is_a_function_of_seed_and_epoch(tmp_path: Path, encoder: Encoder) -> None:
    source = SourceSettings(file=numbered(tmp_path / "a.jsonl", 50))
    first, again, other = (data(encoder, source, seed=seed).train for seed in (1, 1, 2))
    assert answers(first) == answers(again) != answers(other)
    before = answers(first)
    first.set_epoch(1)
    assert answers(first) != before and sorted(answers(first)) == sorted(before)
    first.set_epoch(0)
    assert answers(first) == before


def test_a_dataset_survives_the_way_to_a_worker(tmp_path: Path, encoder: Encoder) -> None:
    dataset = data(encoder, SourceSettings(file=numbered(tmp_path / "a.jsonl", 5))).train
    before = answers(dataset)
    assert answers(pickle.loads(pickle.dumps(dataset))) == before


def test_procedural_examples_are_fresh_each_epoch_and_of_their_split(encoder: Encoder) -> None:
    dataset = data(encoder, SourceSettings(procedural=["sort", "reverse"], count=40), share=0.25).train
    assert len(dataset) == 40
    assert Counter(dataset[i].task_name for i in range(40)) == {"sort": 20, "reverse": 20}
    keys = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        found = [dataset.record(i)[0].example for i in range(40)]
        keys.append({e.key for e in found if e is not None})
        assert all(e is not None and split_of(e.key) == "train" for e in found)
    assert not keys[0] & keys[1]


def test_procedural_validation_is_of_the_validation_split(encoder: Encoder) -> None:
    held = data(encoder, SourceSettings(procedural=["sort"], count=40), share=0.25).validation
    assert len(held) == 10
    examples = [held.record(i)[0].example for i in range(10)]
    assert all(e is not None and split_of(e.key) == "validation" for e in examples)


def test_a_small_share_of_procedural_examples_holds_each_family(encoder: Encoder) -> None:
    found = data(encoder, SourceSettings(procedural=["sort", "reverse", "repeat"], count=30), share=0.01)
    assert [found.validation.record(i)[1] for i in range(len(found.validation))] == ["sort", "reverse", "repeat"]
    assert found.report.validation == found.report.sources[0].validation == 3
    assert not data(encoder, SourceSettings(procedural=["sort"], count=30), share=0.0).validation


def test_equal_prompts_stay_on_one_side(tmp_path: Path, encoder: Encoder) -> None:
    records = [{"instruction": f"Say {i % 20}.", "output": f"{i}"} for i in range(100)]
    found = data(encoder, SourceSettings(file=write(tmp_path / "a.jsonl", records)), share=0.2)
    sides = [{int(a) % 20 for a in answers(side)} for side in (found.train, found.validation)]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == set(range(20))
    assert 15 <= len(found.validation) <= 25


def test_validation_may_have_sources_of_its_own(tmp_path: Path, encoder: Encoder) -> None:
    held = SourceSettings(file=numbered(tmp_path / "held.jsonl", 3))
    found = prepare(
        [SourceSettings(file=numbered(tmp_path / "a.jsonl", 9))], ValidationSettings(sources=[held]), encoder, 0
    )
    assert (len(found.train), len(found.validation), found.tasks) == (9, 3, ["a", "held"])


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


def test_lines_are_found_whatever_ends_them(tmp_path: Path) -> None:
    line = json.dumps({"instruction": "Say it.", "output": "ä"}, ensure_ascii=False)
    path = tmp_path / "a.jsonl"
    path.write_bytes(f"\ufeff{line}\r\n\n   \n{line}\n{line}".encode())
    source = FileSource(SourceSettings(file=path))
    assert [source.record(i)[0].response for i in range(len(source))] == ["ä"] * 3
    assert [source.where(i) for i in range(3)] == ["a.jsonl:1", "a.jsonl:4", "a.jsonl:5"]
    assert len(FileSource(SourceSettings(file=path, limit=2))) == 2


def test_a_file_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    line = json.dumps({"instruction": "Say it.", "output": "x" * 4000}) + "\n"
    path.write_text(line * 5000)
    tracemalloc.start()
    source = FileSource(SourceSettings(file=path))
    assert source.record(4999)[0].response == "x" * 4000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(source) == 5000 and peak < 1_000_000 < path.stat().st_size


def test_examples_of_a_procedural_source_depend_on_the_seed_alone() -> None:
    chosen = SourceSettings(procedural=["combined"], count=10)
    first, again, other = (ProceduralSource(chosen, seed) for seed in (0, 0, 1))
    assert [first.record(i)[0] for i in range(10)] == [again.record(i)[0] for i in range(10)]
    assert first.record(0)[0] != other.record(0)[0]
    assert first.record(0, turn=1)[0] != first.record(0)[0]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "either"),
        ({"file": "a", "procedural": ["sort"]}, "either"),
        ({"procedural": ["sorting"]}, "no family 'sorting'"),
        ({"procedural": []}, "at least one"),
        ({"file": "a", "count": 3}, "count: means nothing beside `file`"),
        ({"procedural": ["sort"], "limit": 3}, "limit: means nothing beside `procedural`"),
        ({"file": "a", "checks": [{"type": "end"}]}, "phrase"),
        ({"file": "a", "weight": 0}, "greater than 0"),
    ],
)
def test_settings_say_what_is_wrong(found: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SourceSettings.model_validate(found)


def test_groups_of_families_have_names() -> None:
    chosen = SourceSettings(procedural=["constraints", "sort"])
    assert chosen.task_names == [*(n for n, f in families().items() if f.is_constraint), "sort"]
    assert SourceSettings(procedural=["constraints"], name="form").task_names == ["form"]


def test_violations_come_with_the_examples(encoder: Encoder) -> None:
    source = SourceSettings(procedural=["bullets"], count=5)
    assert all(data(encoder, source).train[i].violating is None for i in range(5))
    dataset = data(encoder, source, violations=True).train
    for index in range(5):
        example = dataset[index]
        assert example.violating is not None and example.violating[-1] == encoder.end_id
        assert example.violating != example.input_ids[example.response_start :]


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


def test_a_file_too_small_to_set_some_apart_is_told(tmp_path: Path, encoder: Encoder) -> None:
    found = data(encoder, SourceSettings(file=numbered(tmp_path / "one.jsonl", 1)), share=0.25)
    assert not found.validation
    assert "one: no record is set apart for validation, because there is one only" in found.report.reasons()


def test_typed_control_tokens_are_counted_and_are_parsed_where_the_recipe_says_so(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    end = str(tokenizer.eos_token)
    path = write(
        tmp_path / "a.jsonl",
        [
            {"instruction": f"Say {end} twice.", "output": f"{end}{end}"},
            {"instruction": "Say nothing.", "output": "nothing"},
        ],
    )
    for parse, said in ((False, "trained on as plain text"), (True, "serve the adapter with --parse-special-tokens")):
        renderer = PromptRenderer(tokenizer, parse_special_tokens=parse)
        found = data(Encoder(renderer, 128), SourceSettings(file=path))
        source = found.report.sources[0]
        assert source.typed == 1 and source.markers == {end: 3}
        assert f"a: 1 with control tokens typed in them ({end} 3); they are" in found.report.reasons()[-1]
        assert said in found.report.reasons()[-1]
        ends = {
            found.train.record(index)[0].response: found.train[index].input_ids.count(tokenizer.eos_token_id)
            for index in range(2)
        }
        assert ends[f"{end}{end}"] - ends["nothing"] == (3 if parse else 0)


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


@given(st.lists(st.integers(0, 300), max_size=12))
def test_the_line_of_any_byte_is_found_in_any_order(places: list[int]) -> None:
    content = b"".join(b"x" * (7 * i % 5) + b"\n" for i in range(150))[:301]
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        mapped = MappedFile(Path(file.name))
        for place in places:
            assert mapped.line_of(place) == content[:place].count(b"\n") + 1


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
