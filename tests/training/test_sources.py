"""Sources as a dataset: weights, order, validation, what is dropped, and files that are not read into memory."""

from __future__ import annotations

import json
import pickle
import tempfile
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ift_serve.text.prompt import PromptRenderer
from ift_training.data.encode import Encoder
from ift_training.data.mixture import ExampleDataset
from ift_training.data.procedural import families, split_of
from ift_training.data.selection import prepare
from ift_training.data.settings import SourceSettings, ValidationSettings
from ift_training.data.shuffle import Permutation
from ift_training.data.sources import FileSource, ProceduralSource
from ift_training.data.sources.mapped import MappedFile
from tests.support.models import tiny_tokenizer
from tests.support.sources import data, numbered, write


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(PromptRenderer(tiny_tokenizer()), 128)


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


@given(st.lists(st.integers(0, 300), max_size=12))
def test_the_line_of_any_byte_is_found_in_any_order(places: list[int]) -> None:
    content = b"".join(b"x" * (7 * i % 5) + b"\n" for i in range(150))[:301]
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        mapped = MappedFile(Path(file.name))
        for place in places:
            assert mapped.line_of(place) == content[:place].count(b"\n") + 1
