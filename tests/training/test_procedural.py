"""Families generate what their checkers accept, and checkers refuse what is wrong."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_training.data.procedural import KINDS, SPLITS, draw, families, family, split_of
from ift_training.data.procedural.constraints import CHECKS, check_constraint

NAMES = list(families())


def test_there_are_families_of_every_kind() -> None:
    assert len(NAMES) >= 16
    assert {f.kind for f in families().values()} == set(KINDS)


def test_an_unknown_family_is_named_in_the_error() -> None:
    with pytest.raises(KeyError, match="there are case, reverse"):
        family("poetry")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_references_pass_their_checker(name: str, seed: int) -> None:
    example = family(name).generate(random.Random(seed))
    verdict = family(name).check(example, example.output)
    assert verdict, (example, verdict)
    assert family(name).check(example, f"  {example.output}\n")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_wrong_answers_fail_with_a_reason(name: str, seed: int) -> None:
    example = family(name).generate(random.Random(seed))
    for wrong in ("", "xyzzy", "I do not know"):
        verdict = family(name).check(example, wrong)
        assert not verdict and verdict.reason


@pytest.mark.parametrize("name", NAMES)
def test_generation_is_reproducible_and_facts_are_json(name: str) -> None:
    first, second = (family(name).generate(random.Random(7)) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(dict(first.facts))) is not None


@pytest.mark.parametrize("name", NAMES)
def test_answers_to_another_example_fail_mostly(name: str) -> None:
    rng = random.Random(3)
    examples = [family(name).generate(rng) for _ in range(60)]
    crossed = [bool(family(name).check(a, b.output)) for a, b in itertools.pairwise(examples) if a.key != b.key]
    assert sum(crossed) / len(crossed) < 0.4


@pytest.mark.parametrize("name", NAMES)
def test_splits_never_share_a_combination(name: str) -> None:
    rng = random.Random(0)
    keys = {split: {draw(family(name), split, rng).key for _ in range(40)} for split in SPLITS}
    for split, found in keys.items():
        assert all(split_of(key) == split for key in found)
    assert not keys["train"] & keys["test"] and not keys["train"] & keys["validation"]


def test_splits_are_stable_over_versions() -> None:
    assert [split_of(f"sort|{i}") for i in range(40)].count("train") == 35
    assert split_of("sort|5") == split_of("sort|5")


def test_a_false_step_is_pointed_at() -> None:
    steps = family("arithmetic_steps")
    example = steps.generate(random.Random(1))
    a, b = example.facts["result"] // 10 * 10, example.facts["result"] % 10
    response = f"{a} + {b} = {a + b}. 1 + 1 = 3. The answer is {example.facts['result']}."
    verdict = steps.check(example, response)
    assert not verdict and verdict.span is not None
    assert response[slice(*verdict.span)] == "1 + 1 = 3"


def test_other_right_answers_pass() -> None:
    listed = family("list_items")
    example = dataclasses.replace(listed.generate(random.Random(1)), facts={"group": "animal", "count": 2})
    assert listed.check(example, "- zebra\n- ant")
    assert not listed.check(example, "zebra, zebra")
    assert not listed.check(example, "zebra, hammer")


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        ({"type": "begin", "phrase": "Of course"}, "Of course: yes", "Yes, of course"),
        ({"type": "end", "phrase": "The end"}, "Once. The end.", "The end of it"),
        ({"type": "include", "word": "fox"}, "A Fox ran.", "Foxes ran."),
        ({"type": "avoid", "word": "fox"}, "Foxes ran.", "the fox ran"),
        ({"type": "bullets"}, "- a\n- b", "- a\nb"),
        ({"type": "json"}, '["a"]', "[a]"),
        ({"type": "commas"}, "a, b", "a b"),
        ({"type": "upper"}, "A, B 7!", "A, b"),
        ({"type": "max_words", "limit": 2}, "two words", "now three words"),
    ],
)
def test_constraints(constraint: dict[str, object], good: str, bad: str) -> None:
    assert check_constraint(constraint, good)
    verdict = check_constraint(constraint, bad)
    assert not verdict and verdict.reason


def test_every_constraint_type_is_tested_above() -> None:
    assert set(CHECKS) == {"begin", "end", "include", "avoid", "bullets", "json", "commas", "upper", "max_words"}
