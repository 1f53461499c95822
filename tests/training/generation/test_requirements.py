"""Requirements that programs judge: asked for in words, judged by a check, true of an answer that meets them only."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ift_serve.checks import Check, judge_all, parse_check
from ift_serve.checks.content import Content
from ift_training.data.generation.evolve.requirements import NAMES, Requirement, requirements, with_requirement
from ift_training.data.generation.record import GeneratedRecord, Lineage, of_record
from ift_training.data.procedural import draw, families
from ift_training.data.records import Record
from ift_training.data.violations import violate

_PLAIN = GeneratedRecord(
    "Describe the old lighthouse.", "The lighthouse stands on the rock, and it is white and old. Gulls rest there.",
    Lineage("seed"),
)  # fmt: skip


def _met(added: Requirement, answer: str) -> str:
    """An answer that meets a requirement, made by hand from one that does not have to."""
    check = added.check
    match getattr(check, "instruction_id", check.type):
        case "begin":
            return f"{check.phrase}: {answer}"  # type: ignore[attr-defined]
        case "end":
            return f"{answer.rstrip('.')}. {check.phrase}"  # type: ignore[attr-defined]
        case "include":
            return f"{answer} {check.word}."  # type: ignore[attr-defined]
        case "avoid":
            words = [word for word in answer.split() if word.strip(".,").lower() != check.word]  # type: ignore[attr-defined]
            return " ".join(words)
        case "max_words":
            return " ".join(answer.split()[: check.limit])  # type: ignore[attr-defined]
        case "min_words":
            return f"{answer} {' '.join(['again'] * check.least)}"  # type: ignore[attr-defined]
        case "min_sentences":
            return f"{answer}{' More.' * check.least}"  # type: ignore[attr-defined]
        case "bullets":
            return "\n".join(f"- {item}" for item in answer.split(", "))
        case "json":
            return json.dumps(answer.split(", "))
        case "upper":
            return answer.upper()
        case "punctuation:no_comma":
            return answer.replace(",", "")
        case "detectable_format:title":
            return f"<<Title>> {answer}"
        case "startend:quotation":
            return f'"{answer}"'
        case "detectable_content:postscript":
            return f"{answer}\nP.S. Come soon."
    return answer


def _records() -> Iterator[tuple[str, GeneratedRecord]]:
    yield "plain", _PLAIN
    for name, family in families().items():
        for seed in range(4):
            example = draw(family, "train", random.Random(seed))
            yield name, of_record(Record.of_example(example), Lineage("seed"))


def _added(record: GeneratedRecord, seed: int = 0) -> list[Requirement]:
    return list(requirements(record, NAMES, random.Random(seed)))


def _new_check(before: GeneratedRecord, after: tuple[Check, ...]) -> list[Check]:
    return [check for check in after if check not in before.checks and not isinstance(check, Content)]


@pytest.mark.parametrize(("name", "record"), list(_records()))
def test_an_answer_that_meets_it_passes_and_one_that_says_something_else_does_not(
    name: str, record: GeneratedRecord
) -> None:
    for added in _added(record):
        instruction, checks = with_requirement(record, added)
        assert instruction.startswith(record.instruction.rstrip()) and instruction.endswith(added.words)
        assert _new_check(record, checks) == [added.check], "one requirement a step"
        met = _met(added, record.response)
        if all(check.verdict(met) for check in record.checks if check in checks):
            assert judge_all(checks, met), (added, met, judge_all(checks, met).reason)
        if not added.check.verdict(record.response):
            assert not judge_all(checks, record.response)
        if any(isinstance(check, Content) for check in checks):
            assert not judge_all(checks, _met(added, "something, else")), "the answer is judged behind its form"


def test_requirements_of_a_plain_answer_are_of_many_kinds() -> None:
    kinds = {getattr(r.check, "instruction_id", r.check.type) for seed in range(9) for r in _added(_PLAIN, seed)}
    assert kinds >= {
        "begin",
        "end",
        "include",
        "avoid",
        "max_words",
        "min_words",
        "upper",
        "bullets",
        "startend:quotation",
    }


@pytest.mark.parametrize("seed", range(6))
def test_requirements_can_be_put_on_one_another_while_they_can_be_met(seed: int) -> None:
    """Up to where none fits, each time with an answer that meets all."""
    example = draw(families()["list_items"], "train", random.Random(seed))
    record = of_record(Record.of_example(example), Lineage("seed"))
    steps = 0
    while found := _added(record, seed):
        instruction, checks = with_requirement(record, found[0])
        answer = _met(found[0], record.response)
        if not judge_all(checks, answer):
            break
        record = replace(record, instruction=instruction, checks=checks, response=answer)
        steps += 1
    assert steps >= 1
    assert [check.type for check in record.checks].count("content") == 1


def test_requirements_that_contradict_are_never_put_together() -> None:
    for first, second in (("bullets", "json"), ("begin", "bullets"), ("max_words", "min_words"), ("end", "json")):
        fields: dict[str, dict[str, object]] = {
            "begin": {"phrase": "Well then"},
            "end": {"phrase": "Well then"},
            "max_words": {"limit": 5},
        }
        check = parse_check({"type": first, **fields.get(first, {})})
        record = replace(_PLAIN, checks=(check,), response="a, b")
        assert second not in {r.check.type for seed in range(5) for r in _added(record, seed)}
        assert first not in {r.check.type for seed in range(5) for r in _added(record, seed)}


@pytest.mark.parametrize(
    ("response", "is_list"),
    [("fox, owl", True), ("red fox, barn owl, toad", True), ("Near the house, Anna saw a fox.", False), ("fox", False),
     ("At last, Anna won.", False)],
)  # fmt: skip
def test_only_a_list_is_asked_for_as_one(response: str, is_list: bool) -> None:
    record = replace(_PLAIN, response=response, checks=(parse_check({"type": "max_words", "limit": 30}),))
    found = {r.check.type for seed in range(9) for r in _added(record, seed)}
    assert (found & {"bullets", "json", "commas"} == {"bullets", "json", "commas"}) is is_list
    assert is_list or not found & {"bullets", "json", "commas"}


def test_a_word_to_avoid_is_one_that_the_answer_has_and_nothing_asks_for() -> None:
    record = replace(_PLAIN, checks=(parse_check({"type": "include", "word": "lighthouse"}),))
    found = {r.check.word for seed in range(60) for r in _added(record, seed) if r.check.type == "avoid"}  # type: ignore[attr-defined]
    assert found and "lighthouse" not in found
    assert all(word in _PLAIN.response.lower() for word in found)


def test_a_record_with_its_requirements_trains_the_instruction_loss() -> None:
    """A wrong answer can be made from the right one, which is what that loss needs beside it."""
    added = next(r for r in _added(_PLAIN) if r.check.type == "end")
    instruction, checks = with_requirement(_PLAIN, added)
    record = replace(_PLAIN, instruction=instruction, checks=checks, response=_met(added, _PLAIN.response)).record()
    broken = violate(record, random.Random(0))
    assert broken is not None and not judge_all(checks, broken)
