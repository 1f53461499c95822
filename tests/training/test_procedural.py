"""Families generate what their checks accept, and the checks refuse what is wrong."""

from __future__ import annotations

import ast
import itertools
import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.checks import judge_all, parse_checks
from ift_serve.checks.categories import CATEGORIES
from ift_training.data.procedural import KINDS, SPLITS, draw, families, family, split_of

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
    verdict = judge_all(example.checks, example.output)
    assert verdict, (example, verdict)
    assert judge_all(example.checks, f"  {example.output}\n")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_wrong_answers_fail_with_a_reason(name: str, seed: int) -> None:
    example = family(name).generate(random.Random(seed))
    for wrong in ("", "xyzzy", "I do not know"):
        verdict = judge_all(example.checks, wrong)
        assert not verdict and verdict.reason


@pytest.mark.parametrize("name", NAMES)
def test_generation_is_reproducible_and_its_checks_are_json(name: str) -> None:
    first, second = (family(name).generate(random.Random(7)) for _ in range(2))
    assert first == second
    assert parse_checks(json.loads(json.dumps([check.model_dump() for check in first.checks]))) == first.checks


@pytest.mark.parametrize("name", NAMES)
def test_answers_to_another_example_fail_mostly(name: str) -> None:
    rng = random.Random(3)
    examples = [family(name).generate(rng) for _ in range(60)]
    crossed = [bool(judge_all(a.checks, b.output)) for a, b in itertools.pairwise(examples) if a.key != b.key]
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
    result = int(example.output.rstrip(".").split()[-1])
    a, b = result // 10 * 10, result % 10
    response = f"{a} + {b} = {a + b}. 1 + 1 = 3. The answer is {result}."
    verdict = judge_all(example.checks, response)
    assert not verdict and verdict.span is not None
    assert response[slice(*verdict.span)] == "1 + 1 = 3"


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
        verdict = judge_all(example.checks, text)
        assert verdict.passed or verdict.reason


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32), space=st.sampled_from(["", " ", "\n", "\u00a0"]), indent=st.none() | st.integers(0, 4)
)
def test_json_is_taken_however_it_is_laid_out(seed: int, space: str, indent: int | None) -> None:
    example = family("json").generate(random.Random(seed))
    items = json.loads(example.output)
    assert judge_all(example.checks, space + json.dumps(items, indent=indent) + space)
    assert not judge_all(example.checks, json.dumps([*items, items[0]]))
    assert not judge_all(example.checks, json.dumps(items)[:-1] + ", NaN]")


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), space=st.sampled_from(["", " ", "  "]), wrong=st.integers(1, 9))
def test_steps_are_taken_however_they_are_cut_and_spaced(seed: int, space: str, wrong: int) -> None:
    example = family("long_sum").generate(random.Random(seed))
    a, b, c = ast.literal_eval(example.key.split("|")[1])
    plus, equals = f"{space}+{space}", f"{space}={space}"
    first, both = f"{a}{plus}{b}{equals}{a + b}", f"{a}{plus}{b}{plus}{c}{equals}"
    assert judge_all(example.checks, f"{first}, so {both}{a + b + c}")
    verdict = judge_all(example.checks, f"{first}, so {both}{a + b + c + wrong}. It is {a + b + c}.")
    assert not verdict and "is not true" in verdict.reason
    assert not judge_all(example.checks, f"{first}, so {both}{a + b + c}. It is {a + b + c + wrong}.")


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_comparison_may_be_said_from_either_end_but_must_be_true(seed: int) -> None:
    example = family("yes_no").generate(random.Random(seed))
    said = re.search(r"(\w+), because (\w+) is (\w+) than (\w+)", example.output)
    if said is None:
        return
    word, first, relation, second = said.groups()
    other = "smaller" if relation == "larger" else "larger"
    assert judge_all(example.checks, f"{word}. Because {second} is {other} than {first}.")
    assert not judge_all(example.checks, f"{word}, because {second} is {relation} than {first}.")


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), join=st.sampled_from([", ", " and ", "\n- ", ", and "]))
def test_listed_things_may_be_joined_by_anything(seed: int, join: str) -> None:
    example = family("list_items").generate(random.Random(seed))
    items = example.output.split(", ")
    assert judge_all(example.checks, join.join(items))
    assert not judge_all(example.checks, join.join([*items, items[0]]))
    assert not judge_all(example.checks, join.join([*items[:-1], "nothing"]))


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_part_of_a_word_is_no_thing_of_a_kind(seed: int) -> None:
    frame = family("frame")
    example = frame.generate(random.Random(seed))
    group, kind, phrase = ast.literal_eval(example.key.split("|")[1])
    glued = "".join(CATEGORIES[group][:2])
    assert not judge_all(example.checks, f"{phrase}: {glued}" if kind == "begin" else f"{glued}. {phrase}")


def test_the_families_that_test_requirements_are_these() -> None:
    """The demo scores them, and a recipe's group `constraints` trains on them."""
    assert [name for name, family in families().items() if family.is_constraint] == [
        *("bullets", "json", "commas", "frame", "include_word", "avoid_word"),
        *("combined", "both_ends", "list_shape", "words_in_and_out", "short_sentence", "long_sum"),
    ]
