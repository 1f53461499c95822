"""Evol-Instruct: each operation, each rule that drops, what goes back to the pool, the same each time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ift_serve.checks import judge_all
from ift_serve.evaluation.serving.outcomes import Answer
from ift_training.data.generation.evolve.elimination import bad_answer, bad_task
from ift_training.data.generation.evolve.writing import Written, new_input, new_task, only_task
from ift_training.data.generation.record import GeneratedRecord
from ift_training.data.generation.report import GenerationReport
from ift_training.data.generation.settings import EliminationSettings
from ift_training.data.generation.store import RecordStore
from ift_training.data.records import parse_record
from ift_training.recipe_file import RecipeError
from tests.support.evolved import evolve, rewriter
from tests.support.generated import records
from tests.support.scripted_server import Script, scripted_server

_RULES = EliminationSettings()


def _fields(seeds: Path, store: Path, *operations: str, **more: Any) -> dict[str, Any]:
    chosen = dict.fromkeys(operations, 1.0)
    return {"seeds": str(seeds), "store": str(store), "operations": chosen, "rounds": 1, "in_flight": 4} | more


def _made(store: Path) -> list[GeneratedRecord]:
    return [record for record in records(store) if record.lineage.step != "seed"]


def _evolved(
    seeds: Path, tmp_path: Path, operation: str, script: Script = rewriter, **more: Any
) -> list[GeneratedRecord]:
    store = tmp_path / f"{operation}.sqlite"
    with scripted_server(script) as server:
        evolve(server.address, **_fields(seeds, store, operation, **more))
    return _made(store)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Added: a length\nNew task: Say it in ten words.", Written("Say it in ten words.", "a length")),
        ("**Added:** a length\n\n**New task:** Say it.\nIn ten words.", Written("Say it.\nIn ten words.", "a length")),
        ("New task: Say it.\nAdded: a length", Written("Say it.", "a length")),
        ("new task: Say it.", Written("Say it.", "")),
        ("Say it in ten words.", None),
        ("Added: a length\nNew task:", None),
        ("", None),
    ],
)
def test_a_new_task_is_read_behind_its_name(text: str, expected: Written | None) -> None:
    assert new_task(Answer(text)) == expected


def test_a_new_input_and_a_lone_task_are_read() -> None:
    assert new_input(Answer("Added: x\nNew input: a, b\nc")) == Written("a, b\nc", "x")
    assert only_task(Answer('"Where is it?"\nI hope this helps')) == Written("Where is it?", "")
    assert only_task(Answer(" \n ")) is None


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        ("Say it again in ten words.", None),
        ("Say it again.", "same"),
        ("Say  it again.", "same"),
        ("Say it again, please: the given task", "copied"),
        ("Rewritten task: say it", "copied"),
        ("word " * 301, "long"),
    ],
)
def test_each_rule_drops_the_task_that_it_is_for(asked: str, rule: str | None) -> None:
    found = bad_task(asked, "Say it again.", _RULES)
    assert (found and found.name) == rule


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        ("It is a long story about a boat.", None),
        ("Sorry, I cannot do that.", "confused"),
        ("I am sorry to say it. " + "The boat went on. " * 30, None),
        ("It is what it is.", "empty"),
        ("... !", "empty"),
        ("", "empty"),
        ("The new task is easy.", "copied"),
    ],
)
def test_each_rule_drops_the_answer_that_it_is_for(answer: str, rule: str | None) -> None:
    found = bad_answer(answer, _RULES)
    assert (found and found.name) == rule


@pytest.mark.parametrize("operation", ["constraint", "deepen", "concretise", "reasoning"])
def test_in_depth_a_record_gets_one_requirement_more_and_says_which(
    seeds: Path, tmp_path: Path, operation: str
) -> None:
    made = _evolved(seeds, tmp_path, operation)
    parents = {record.id: record for record in records(tmp_path / f"{operation}.sqlite")}
    assert len(made) == 10 and all(record.status == "kept" for record in made)
    for record in made:
        parent = parents[record.lineage.parents[0]]
        assert record.instruction.startswith(parent.instruction) and record.context == parent.context
        assert record.lineage.step == f"evolve.{operation}" and record.lineage.added.startswith("the word")
        assert record.lineage.prompts[0].startswith(f"evolve_{operation}@")
        assert parse_record(record.line()).response == record.response


def test_only_a_record_with_an_input_gets_a_more_complicated_one(seeds: Path, tmp_path: Path) -> None:
    made = _evolved(seeds, tmp_path, "input")
    assert len(made) == 3 and all(record.context.count(",") and record.lineage.added for record in made)


def test_what_evolved_goes_on_from_where_it_is(seeds: Path, tmp_path: Path) -> None:
    made = _evolved(seeds, tmp_path, "constraint", rounds=3)
    assert len(made) == 30
    by_id = {record.id: record for record in records(tmp_path / "constraint.sqlite")}
    last = made[-1]
    depth = 0
    while last.lineage.parents:
        last, depth = by_id[last.lineage.parents[0]], depth + 1
    assert depth == 3 and last.lineage.step == "seed"


@pytest.mark.parametrize(
    ("answers", "rule"),
    [
        ({"Here are two tasks": "Yes, the same."}, "same"),
        ({"Rewrite": "I would make it harder."}, "form"),
        ({"Rewrite": "Added: x\nNew task: Do the given task."}, "copied"),
        ({"Rewrite": "<refuse>"}, "form"),
        ({"": "Sorry, no."}, "confused"),
        ({"": "The answer is long and<cut>"}, "cut"),
        ({"": "<refuse>"}, "refused"),
    ],
)
def test_an_evolution_that_fails_goes_back_until_its_budget_is_spent(
    seeds: Path, tmp_path: Path, answers: dict[str, str], rule: str
) -> None:
    def script(text: str, request: Any) -> str:
        is_asked = text.startswith(("Rewrite", "Here are two tasks"))
        begins = next((begin for begin in answers if text.startswith(begin) and (begin or not is_asked)), None)
        return rewriter(text, request) if begins is None else answers[begins]

    made = _evolved(seeds, tmp_path, "constraint", script, rounds=9, retries=2)
    assert Counter(record.reasons[0].name for record in made) == {rule: 30}, "three tries of each of ten seeds"
    assert all(count == 3 for count in Counter(record.lineage.parents for record in made).values())
    with RecordStore(tmp_path / "constraint.sqlite") as store:
        given_up = store.note("evolve.given_up")
        assert len(given_up) == 10 and {each["operation"] for each in given_up} == {"constraint"}
        report = GenerationReport.of(store).to_json()
    assert report["steps"]["evolve.constraint"]["yield"] == 0
    assert report["reasons"] == [{"step": "evolve.constraint", "verdict": "rejected", "reason": rule, "records": 30}]


def test_in_breadth_new_tasks_join_the_pool_beside_rare_ones(seeds: Path, tmp_path: Path) -> None:
    made = _evolved(seeds, tmp_path, "breadth", rounds=2, breadth={"smallest": 2})
    assert len(made) > 10 and all(record.context == "" for record in made if record.status == "kept")
    with RecordStore(tmp_path / "breadth.sqlite") as store:
        found = store.note("evolve.breadth")
    assert sum(before for before, _ in found["clusters"].values()) == 10
    assert sum(after for _, after in found["clusters"].values()) == 10 + sum(r.status == "kept" for r in made)
    assert (tmp_path / "breadth.sqlite.breadth.png").read_bytes().startswith(b"\x89PNG")


def _says(*sentences: str) -> Script:
    """A model that knows a few sentences, one a draw."""
    return lambda text, request: sentences[request.sampling.seed % len(sentences)]


def test_a_verifiable_requirement_is_kept_only_with_an_answer_that_meets_it(seeds: Path, tmp_path: Path) -> None:
    checks = {"checks": ["upper", "bullets"], "samples": 6}
    script = _says("THE HARBOUR IS OLD.", "the harbour is old", "- the harbour\n- the sea")
    made = _evolved(seeds, tmp_path, "verifiable", script, verifiable=checks, seed=1)
    kept = [record for record in made if record.status == "kept"]
    assert len(made) == 10 and len(kept) >= 7
    for record in made:
        assert bool(judge_all(record.checks, record.response)) is (record.status == "kept")
        assert record.instruction.endswith(record.lineage.added) and len(record.checks) == 1
    assert {record.checks[0].type for record in kept} == {"upper", "bullets"}
    assert len({record.reasons[0].score for record in kept}) > 1, "not all by the first sample"


def test_variations_are_different_requirements_on_one_record(seeds: Path, tmp_path: Path) -> None:
    script = _says("The harbour is old. Boats come. People wait. Gulls cry. Evening falls. " * 6)
    checks = {"checks": ["min_words", "min_sentences", "punctuation:no_comma", "upper"], "variations": 3, "samples": 1}
    made = _evolved(seeds, tmp_path, "variation", script, verifiable=checks, rounds=2)
    by_parent = Counter(record.lineage.parents for record in made if record.lineage.place == 0)
    assert set(by_parent.values()) == {3}
    assert {record.lineage.parents[0] for record in made} == {r.id for r in records(tmp_path / "variation.sqlite")[:10]}
    kept = [record.instruction for record in made if record.status == "kept"]
    assert len(kept) == len(set(kept)), "no two records ask the same"


def test_a_dialogue_goes_on_with_what_was_said(seeds: Path, tmp_path: Path) -> None:
    made = _evolved(seeds, tmp_path, "dialogue", rounds=2)
    assert {len(record.history) for record in made} == {2, 4}
    longest = max(made, key=lambda record: len(record.history))
    assert [turn.role for turn in longest.history] == ["user", "assistant"] * 2
    read = parse_record(longest.line())
    assert [m.role for m in read.prompt] == ["user", "assistant", "user", "assistant", "user"]


def test_a_rationale_is_kept_only_where_its_answer_checks(tmp_path: Path) -> None:
    rows = [
        {"instruction": "What is 2 + 2?", "output": "4", "checks": [{"type": "last_number", "value": 4}]},
        {"instruction": "Which city is the capital of France?", "output": "Paris"},
        {"instruction": "Tell a long story.", "output": "Once there was a boat that went far away."},
    ]
    (seeds := tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = {"What is": "Two and two.\nAnswer: 4", "Which city": "It is in the south.\nAnswer: Lyon"}

    def script(text: str, request: Any) -> str:
        return next((answer for begin, answer in answers.items() if text.startswith(begin)), "no")

    made = _evolved(seeds, tmp_path, "rationale", script)
    assert [(record.status, record.reasons[0].name if record.reasons else "") for record in made] == [
        ("kept", ""), ("rejected", "check"),
    ], "a long answer cannot be compared"  # fmt: skip
    assert made[0].response.startswith("Two and two.") and judge_all(made[0].checks, made[0].response)


def test_another_language_is_told_by_its_text(seeds: Path, tmp_path: Path) -> None:
    german = "Bitte nennen Sie mir drei Tiere, die im Meer leben, und sagen Sie, warum das so ist."
    english = "Please name three animals that live in the sea and tell me why that is so."

    def script(text: str, request: Any) -> str:
        is_odd = request.sampling.seed % 2
        if text.startswith("Translate"):
            return f"{english if 'thermometer' in text else german} {len(text)}"
        return english if is_odd else german

    made = _evolved(seeds, tmp_path, "translate", script, languages=["German"])
    found = Counter((record.status, record.reasons[0].name if record.reasons else "") for record in made)
    assert found["rejected", "language"] == 1 and found["rejected", "check"] > 0 and found["kept", ""] > 0
    assert all(record.lineage.added == "German" for record in made)


_ALL = ("constraint", "deepen", "input", "verifiable", "variation", "dialogue", "rationale")


def test_the_same_seed_makes_the_same_records_however_fast_answers_come(seeds: Path, tmp_path: Path) -> None:
    found = []
    for name, seconds, seed in (("a", 0.0, 0), ("b", 0.003, 0), ("c", 0.0, 1)):
        store = tmp_path / f"{name}.sqlite"
        with scripted_server(rewriter, seconds) as server:
            evolve(server.address, **_fields(seeds, store, *_ALL, rounds=3, in_flight=5, seed=seed))
        found.append([record.id for record in records(store)])
    assert found[0] == found[1] != found[2]


def test_a_run_stops_at_what_is_wanted(seeds: Path, tmp_path: Path) -> None:
    made = _evolved(seeds, tmp_path, "constraint", rounds=9, wanted=17)
    assert sum(record.status == "kept" for record in made) == 17


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operations": {"constraint": -1}}, r"operations\.constraint"),
        ({"operations": {"constraint": 0}}, "above 0"),
        ({"operations": {"constrain": 1}}, "operations"),
        ({"verifiable": {"checks": ["rhyme"]}}, "no requirement 'rhyme'"),
        ({"writer": {"decoding": {"temprature": 1}}}, "no such setting"),
        ({"answerer": {"style": "text"}}, r"answerer: style"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(
    seeds: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        evolve("", **_fields(seeds, tmp_path / "r.sqlite", "constraint") | change)


_RUN = """
import json, sys
from tests.support.evolved import evolve
evolve(sys.argv[1], **json.loads(sys.argv[2]))
"""


@pytest.mark.parametrize("seed", range(2))
def test_a_run_that_is_killed_again_and_again_ends_as_an_unbroken_one(seeds: Path, tmp_path: Path, seed: int) -> None:
    """Each time at a random moment; no answer is paid for twice but those in flight."""
    rng, kills = random.Random(seed), 0
    fields = _fields(seeds, tmp_path / "r.sqlite", *_ALL, rounds=3, in_flight=4)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with scripted_server(rewriter, 0.004) as server:
        while True:
            command = [sys.executable, "-c", _RUN, server.address, json.dumps(fields)]
            process = subprocess.Popen(command, env=environment)
            wanted = server.calls.total() + rng.randint(5, 60)
            while kills < 4 and process.poll() is None and server.calls.total() < wanted:
                time.sleep(0.002)
            if kills < 4 and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            if process.wait() == 0:
                break
        asked = server.calls.total()
        evolve(server.address, **fields | {"store": str(tmp_path / "whole.sqlite")})
        assert kills > 1 and asked <= server.calls.total() - asked + 4 * kills
    assert records(tmp_path / "r.sqlite") == records(tmp_path / "whole.sqlite")
