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
from ift_training.data.procedural.vocabulary import CATEGORIES

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


AWKWARD = st.sampled_from(
    [
        "[" * 100_000,
        "9" * 10_000,
        f"1 + {'9' * 5000} = 3",
        "\u00a0[]",
        "NaN",
        "[NaN]",
        "-",
        "\ud800",
        "because",
        "- ",
        "²³",
    ]
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), response=st.text(max_size=60) | AWKWARD, before=st.booleans())
def test_a_checker_has_a_verdict_on_any_text(name: str, seed: int, response: str, before: bool) -> None:
    example = family(name).generate(random.Random(seed))
    for text in (response, f"{response} {example.output}" if before else f"{example.output} {response}"):
        verdict = family(name).check(example, text)
        assert verdict.passed or verdict.reason


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32), space=st.sampled_from(["", " ", "\n", "\u00a0"]), indent=st.none() | st.integers(0, 4)
)
def test_json_is_taken_however_it_is_laid_out(seed: int, space: str, indent: int | None) -> None:
    example = family("json").generate(random.Random(seed))
    items = json.loads(example.output)
    assert family("json").check(example, space + json.dumps(items, indent=indent) + space)
    assert not family("json").check(example, json.dumps([*items, items[0]]))
    assert not family("json").check(example, json.dumps(items)[:-1] + ", NaN]")


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), space=st.sampled_from(["", " ", "  "]), wrong=st.integers(1, 9))
def test_steps_are_taken_however_they_are_cut_and_spaced(seed: int, space: str, wrong: int) -> None:
    example = family("long_sum").generate(random.Random(seed))
    a, b, c = example.facts["numbers"]
    plus, equals = f"{space}+{space}", f"{space}={space}"
    first, both = f"{a}{plus}{b}{equals}{a + b}", f"{a}{plus}{b}{plus}{c}{equals}"
    assert family("long_sum").check(example, f"{first}, so {both}{a + b + c}")
    verdict = family("long_sum").check(example, f"{first}, so {both}{a + b + c + wrong}. It is {a + b + c}.")
    assert not verdict and "is not true" in verdict.reason
    assert not family("long_sum").check(example, f"{first}, so {both}{a + b + c}. It is {a + b + c + wrong}.")


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_comparison_may_be_said_from_either_end_but_must_be_true(seed: int) -> None:
    example = family("yes_no").generate(random.Random(seed))
    if len(example.facts["reason"]) == 1:
        return
    first, relation, second = example.facts["reason"]
    other = "smaller" if relation == "larger" else "larger"
    word = "Yes" if example.facts["yes"] else "No"
    assert family("yes_no").check(example, f"{word}. Because {second} is {other} than {first}.")
    assert not family("yes_no").check(example, f"{word}, because {second} is {relation} than {first}.")


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), join=st.sampled_from([", ", " and ", "\n- ", ", and "]))
def test_listed_things_may_be_joined_by_anything(seed: int, join: str) -> None:
    example = family("list_items").generate(random.Random(seed))
    items = example.output.split(", ")
    assert family("list_items").check(example, join.join(items))
    assert not family("list_items").check(example, join.join([*items, items[0]]))
    assert not family("list_items").check(example, join.join([*items[:-1], "nothing"]))


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_part_of_a_word_is_no_thing_of_a_kind(seed: int) -> None:
    frame = family("frame")
    example = frame.generate(random.Random(seed))
    phrase, kind = example.facts["frame"]["phrase"], example.facts["frame"]["type"]
    glued = "".join(CATEGORIES[example.facts["group"]][:2])
    assert not frame.check(example, f"{phrase}: {glued}" if kind == "begin" else f"{glued}. {phrase}")
