"""Whole runs of Self-Instruct against a scripted server: what is kept, with which lineage, the same each time."""

from __future__ import annotations

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

from ift_training.data.generation.errors import GenerationError
from ift_training.data.generation.export import export
from ift_training.data.generation.rouge import rouge_l, words
from ift_training.data.generation.store import RecordStore
from ift_training.data.records import parse_record
from tests.support.generated import generate, records, task_writer
from tests.support.scripted_server import scripted_server


def _fields(seeds: Path, store: Path, **more: Any) -> dict[str, Any]:
    return {"seeds": str(seeds), "store": str(store), "tries": 12, "in_flight": 4, "seed": 1} | more


def test_a_run_keeps_what_is_new_and_says_why_the_rest_is_not(seeds: Path, tmp_path: Path) -> None:
    store = tmp_path / "r.sqlite"
    with scripted_server(task_writer) as server:
        progress = generate(server.address, **_fields(seeds, store))
    found = records(store)
    by_id = {record.id: record for record in found}
    steps = Counter((record.lineage.step, record.status) for record in found)
    assert steps["seed", "kept"] == 10 and steps["instruction", "kept"] > 10
    assert steps["instance", "kept"] > 10 and steps["instance", "rejected"] > 0
    assert all(record.reasons for record in found if record.status == "rejected")
    kept = [r.instruction for r in found if r.status == "kept" and r.lineage.step in ("seed", "instruction")]
    pairs = [(a, b) for place, a in enumerate(kept) for b in kept[:place]]
    assert all(rouge_l(words(a), words(b)) <= 0.7 for a, b in pairs[:3000])
    for record in found:
        assert all(parent in by_id for parent in record.lineage.parents)
        if record.lineage.step == "instance":
            (parent,) = (by_id[each] for each in record.lineage.parents)
            assert parent.status == "kept" and parent.instruction == record.instruction
            assert parent.lineage.step == "instruction" and len(parent.lineage.parents) == 8
            assert record.lineage.model == "f" and len(record.lineage.prompts) == 3
            if record.status == "kept":
                assert parse_record(record.line()).response == record.response
    assert progress.generated_tokens > 0 and progress.counts["kept"] == steps.total() - 10 - sum(
        count for (step, status), count in steps.items() if status != "kept"
    )


def test_what_is_too_similar_to_the_pool_is_rejected_with_its_neighbour(seeds: Path, tmp_path: Path) -> None:
    def script(text: str, request: Any) -> str:
        if text.startswith("Here is a varied list"):
            return " Name three animals that live in the big sea.\n10. Name three birds of the northern forests."
        return task_writer(text, request)

    store = tmp_path / "r.sqlite"
    with scripted_server(script) as server:
        generate(server.address, **_fields(seeds, store, tries=3, in_flight=1))
    made = [r for r in records(store) if r.lineage.step == "instruction"]
    assert [r.status for r in made] == ["rejected", "kept", *["rejected"] * 4]
    assert all(r.reasons[0].name == "similar" and (r.reasons[0].score or 0) > 0.7 for r in made if r.status != "kept")
    first, seed = made[0], records(store)[0]
    assert first.reasons[0].message.endswith(seed.id)
    assert first.reasons[0].score == pytest.approx(rouge_l(words(first.instruction), words(seed.instruction)))


def test_the_same_seed_makes_the_same_records_however_fast_answers_come(seeds: Path, tmp_path: Path) -> None:
    found = []
    for name, seconds in (("a", 0.0), ("b", 0.003)):
        with scripted_server(task_writer, seconds) as server:
            generate(server.address, **_fields(seeds, tmp_path / f"{name}.sqlite", in_flight=6))
        assert server.most > 1
        found.append([record.id for record in records(tmp_path / f"{name}.sqlite")])
    assert found[0] == found[1]
    with scripted_server(task_writer) as server:
        generate(server.address, **_fields(seeds, tmp_path / "c.sqlite", in_flight=6, seed=2))
    assert [record.id for record in records(tmp_path / "c.sqlite")] != found[0]


def test_a_second_run_asks_nothing_again_and_may_go_further(seeds: Path, tmp_path: Path) -> None:
    store = tmp_path / "r.sqlite"
    with scripted_server(task_writer) as server:
        generate(server.address, **_fields(seeds, store, tries=4))
        before, calls = records(store), server.calls.total()
        generate(server.address, **_fields(seeds, store, tries=4))
        assert server.calls.total() == calls and records(store) == before
        generate(server.address, **_fields(seeds, store, tries=8))
        assert server.calls.total() > calls
        assert {record.id for record in before} <= {record.id for record in records(store)}


def test_a_run_stops_at_what_is_wanted(seeds: Path, tmp_path: Path) -> None:
    store = tmp_path / "r.sqlite"
    with scripted_server(task_writer) as server:
        generate(server.address, **_fields(seeds, store, tries=100, wanted=9))
    kept = [r for r in records(store) if r.lineage.step == "instruction" and r.status == "kept"]
    assert 9 <= len(kept) <= 12, "an answer is taken whole"


@pytest.mark.parametrize("change", [{"seed": 5}, {"instances": {"most": 1}}, {"in_flight": 7}])
def test_a_store_of_another_recipe_is_refused_by_the_field(seeds: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    store = tmp_path / "r.sqlite"
    with scripted_server(task_writer) as server:
        generate(server.address, **_fields(seeds, store, tries=1))
        with pytest.raises(
            GenerationError, match=rf"recipe\.{next(iter(change))}.* is not what this store was made with"
        ):
            generate(server.address, **_fields(seeds, store, tries=1) | change)


def test_a_store_of_another_model_or_prompt_is_refused(seeds: Path, tmp_path: Path) -> None:
    store = tmp_path / "r.sqlite"
    with scripted_server(task_writer) as server:
        generate(server.address, **_fields(seeds, store, tries=1))
        (own := tmp_path / "prompts").mkdir()
        (own / "verify.txt").write_text("Is $response right for $asked?")
        with pytest.raises(GenerationError, match=r"recipe\.prompts is not what"):
            generate(server.address, **_fields(seeds, store, tries=1, prompts=str(own)))
    with (
        scripted_server(task_writer, fingerprint="g") as server,
        pytest.raises(GenerationError, match=r"models\.classification is not what"),
    ):
        generate(server.address, **_fields(seeds, store, tries=1))


def test_other_seeds_are_another_run(seeds: Path, tmp_path: Path) -> None:
    store = tmp_path / "r.sqlite"
    with scripted_server(task_writer) as server:
        generate(server.address, **_fields(seeds, store, tries=1))
        seeds.write_text(seeds.read_text() + '{"instruction": "One seed more.", "output": "Yes"}\n')
        with pytest.raises(GenerationError, match="seeds is not what"):
            generate(server.address, **_fields(seeds, store, tries=1))


def test_what_one_run_made_is_the_seed_of_the_next_and_says_so(seeds: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.sqlite", tmp_path / "second.sqlite"
    with scripted_server(task_writer) as server:
        generate(server.address, **_fields(seeds, first, tries=4))
        with RecordStore(first) as store:
            written = export(store, tmp_path / "made.jsonl")
        generate(server.address, **_fields(tmp_path / "made.jsonl", second, tries=1))
    kept = [r.id for r in records(first) if r.lineage.step == "instance" and r.status == "kept"]
    again = [record for record in records(second) if record.lineage.step == "seed"]
    assert len(kept) == written and [record.lineage.parents for record in again] == [(each,) for each in kept]


def test_instances_can_be_written_by_another_server_and_adapter(seeds: Path, tmp_path: Path) -> None:
    store = tmp_path / "r.sqlite"
    with scripted_server(task_writer) as first, scripted_server(task_writer, fingerprint="g") as second:
        own = {"speaker": {"server": second.address, "adapter": "tone"}}
        generate(first.address, **_fields(seeds, store, tries=2, instances=own))
        assert second.calls.total() > 0 and all(text.startswith("Give") for text in second.calls)
    made = [record.lineage for record in records(store) if record.lineage.step == "instance"]
    assert {(lineage.model, lineage.adapter) for lineage in made} == {("g", "tone@1")}


def test_a_users_prompt_is_asked_in_place_of_the_packages(seeds: Path, tmp_path: Path) -> None:
    (own := tmp_path / "prompts").mkdir()
    (own / "instructions.txt").write_text("Ideas:\n$examples\n$number.\n")
    with scripted_server(lambda text, _: " Say it in your own words.") as server:
        generate(server.address, **_fields(seeds, tmp_path / "r.sqlite", tries=1, prompts=str(own)))
        (asked,) = (text for text in server.calls if text.startswith("Ideas:\n1. "))
    assert asked.endswith("\n9."), "line ends at the end of the file are no part of it"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("instructions", "Go on: $examples", r"does not use \$number"),
        ("instructions", "$examples $number $more", r"\$more is not filled in"),
        ("instructions", "$examples $number costs 5$", "write \\$\\$"),
        ("instruction", "anything", "instruction.txt is no prompt"),
    ],
)
def test_a_prompt_that_cannot_work_is_refused_before_anything_is_asked(
    seeds: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (own := tmp_path / "prompts").mkdir()
    (own / f"{name}.txt").write_text(text)
    with scripted_server(task_writer) as server, pytest.raises(GenerationError, match=message):
        generate(server.address, **_fields(seeds, tmp_path / "r.sqlite", prompts=str(own)))
    assert not server.calls


def test_a_request_that_the_server_refuses_is_a_rejection(seeds: Path, tmp_path: Path) -> None:
    def script(text: str, request: Any) -> str:
        return "<refuse>" if text.startswith("Give") else task_writer(text, request)

    with scripted_server(script) as server:
        generate(server.address, **_fields(seeds, tmp_path / "r.sqlite", tries=2))
    made = [record for record in records(tmp_path / "r.sqlite") if record.lineage.step == "instance"]
    assert made and all(record.reasons[0].name == "refused" for record in made)


def test_a_server_that_stops_ends_the_run_and_the_next_one_goes_on(seeds: Path, tmp_path: Path) -> None:
    asked = 0

    def script(text: str, request: Any) -> str:
        nonlocal asked
        asked += 1
        return "<gone>" if asked > 20 else task_writer(text, request)

    store = tmp_path / "r.sqlite"
    with scripted_server(script) as server, pytest.raises(GenerationError, match="run the same command again"):
        generate(server.address, **_fields(seeds, store))
    with RecordStore(store) as opened:
        kept = len(opened.calls)
    with scripted_server(task_writer) as server:
        generate(server.address, **_fields(seeds, store))
        assert server.calls.total() > 0
        resumed = server.calls.total()
        generate(server.address, **_fields(seeds, tmp_path / "whole.sqlite"))
        assert server.calls.total() - resumed == resumed + kept
    assert [r.id for r in records(store)] == [r.id for r in records(tmp_path / "whole.sqlite")]


_RUN = """
import sys
from tests.support.generated import generate
generate(sys.argv[1], seeds=sys.argv[2], store=sys.argv[3], tries=25, in_flight=4, seed=1)
"""


@pytest.mark.parametrize("seed", range(2))
def test_a_run_that_is_killed_again_and_again_ends_as_an_unbroken_one(seeds: Path, tmp_path: Path, seed: int) -> None:
    """Each time at a random moment; no answer is paid for twice but those in flight."""
    rng, kills, path = random.Random(seed), 0, tmp_path / "r.sqlite"
    in_flight = 4 * 2  # both instances of an instruction are verified at once
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with scripted_server(task_writer, 0.004) as server:
        command = [sys.executable, "-c", _RUN, server.address, str(seeds), str(path)]
        while True:
            process = subprocess.Popen(command, env=environment)
            wanted = server.calls.total() + rng.randint(5, 60)
            while kills < 4 and process.poll() is None and server.calls.total() < wanted:
                time.sleep(0.002)
            if kills < 4 and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            if process.wait() == 0:
                break
            with RecordStore(path) as store:
                assert len(store.calls) >= server.calls.total() - in_flight * kills
        asked = server.calls.total()
        generate(server.address, seeds=str(seeds), store=str(tmp_path / "whole.sqlite"), tries=25, in_flight=4, seed=1)
        assert kills > 1 and asked <= server.calls.total() - asked + in_flight * kills
    assert records(path) == records(tmp_path / "whole.sqlite")
