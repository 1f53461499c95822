"""Violations: answers close to right ones that the checkers refuse."""

from __future__ import annotations

import random

import pytest

from ift_serve.checks import judge_all
from ift_training.data.procedural import draw, families, family
from ift_training.data.records import Record, parse_record
from ift_training.data.violations import _BREAKERS, violate


@pytest.mark.parametrize("name", list(families()))
def test_a_violation_fails_its_family_and_the_original_passes(name: str) -> None:
    rng = random.Random(name)
    for _ in range(40):
        example = draw(family(name), "train", rng)
        broken = violate(Record.of_example(example), rng)
        assert judge_all(example.checks, example.output)
        assert broken is not None and broken.strip()
        assert not judge_all(example.checks, broken), broken


@pytest.mark.parametrize(
    ("check", "output"),
    [
        ({"type": "begin", "phrase": "Of course"}, "Of course: a fox"),
        ({"type": "end", "phrase": "The end"}, "A fox ran. The end"),
        ({"type": "include", "word": "fox"}, "A fox ran."),
        ({"type": "avoid", "word": "fox"}, "A dog ran."),
        ({"type": "bullets"}, "- fox\n- dog"),
        ({"type": "json"}, '["fox", "dog"]'),
        ({"type": "commas"}, "fox, dog"),
        ({"type": "upper"}, "A FOX RAN."),
        ({"type": "max_words", "limit": 3}, "A fox ran."),
    ],
)
def test_every_check_can_be_violated(check: dict[str, object], output: str) -> None:
    record = parse_record({"instruction": "Answer.", "output": output, "checks": [check]})
    rng = random.Random(0)
    for _ in range(20):
        broken = violate(record, rng)
        assert broken is not None and not judge_all(record.checks, broken)
    assert judge_all(record.checks, output)


def test_every_check_that_can_be_broken_on_purpose_is_violated_above() -> None:
    assert len(_BREAKERS) == 9


def test_what_nothing_can_judge_has_no_violation() -> None:
    assert violate(parse_record({"instruction": "Answer.", "output": "yes"}), random.Random(0)) is None


def test_a_check_that_nothing_breaks_on_purpose_is_violated_by_a_change() -> None:
    record = parse_record(
        {"instruction": "2?", "output": "It is 12.", "checks": [{"type": "last_number", "value": 12}]}
    )
    broken = violate(record, random.Random(0))
    assert broken is not None and not judge_all(record.checks, broken)


def test_violations_are_seeded_and_varied() -> None:
    record = Record.of_example(draw(family("both_ends"), "train", random.Random(1)))
    found = [violate(record, random.Random(seed)) for seed in range(12)]
    assert found == [violate(record, random.Random(seed)) for seed in range(12)]
    assert len(set(found)) > 4
