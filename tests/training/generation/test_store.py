"""The file that holds what was made: each record once, in order, whatever happens to the process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ift_serve.checks import parse_checks
from ift_training.data.generation.errors import GenerationError
from ift_training.data.generation.record import GeneratedRecord, Lineage, Reason, Turn, of_content, of_record
from ift_training.data.generation.store import REVIEW, RecordStore
from ift_training.data.records import parse_record


def record(number: int = 0, **changes: object) -> GeneratedRecord:
    made = GeneratedRecord(f"Say {number}.", str(number), Lineage("seed", place=number))
    return replace(made, **changes)  # type: ignore[arg-type]


def full() -> GeneratedRecord:
    """A record with something in every field."""
    lineage = Lineage("evolve.constraint", ("a", "b"), ("evolve.txt@12",), "f" * 64, "tone@1", 7, 3, "ends with ä")
    return GeneratedRecord(
        "Go on.", "Yes ä", lineage, "about this",
        (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Ho")),
        parse_checks([{"type": "end", "phrase": "ä"}]), "kept", (Reason("rouge", "new", 0.25, 0.7),),
    )  # fmt: skip


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    made = full()
    with RecordStore(tmp_path / "r.sqlite") as store:
        assert store.put(made)
    with RecordStore(tmp_path / "r.sqlite") as store:
        found = store.get(made.id)
        assert found == made and found.reasons == made.reasons and found.id == made.id
        assert of_content(made.content(), made.status) == made


def test_a_record_is_kept_once_and_its_status_is_not_overwritten() -> None:
    with RecordStore() as store:
        made = record().judged("kept")
        assert store.put(made)
        store.judge(made.id, "coherence", "rejected", [Reason("coherence", "apart", 0.1, 0.3)])
        assert not store.put(made) and len(store) == 1
        assert store.get(made.id).status == "rejected"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "field",
    [
        {"step": "other"}, {"parents": ("x",)}, {"prompts": ("p@1",)}, {"model": "m"}, {"adapter": "a@1"},
        {"seed": 1}, {"place": 9}, {"added": "more"},
    ],
)  # fmt: skip
def test_records_of_another_origin_are_other_records(field: dict[str, object]) -> None:
    made = record()
    assert replace(made, lineage=replace(made.lineage, **field)).id != made.id  # type: ignore[arg-type]


def test_records_come_in_the_order_in_which_they_were_made() -> None:
    numbers = list(range(700))
    random.Random(0).shuffle(numbers)
    with RecordStore() as store:
        for number in numbers:
            store.put(record(number))
        assert [found.lineage.place for found in store.records()] == numbers


def test_records_are_found_by_status_and_step() -> None:
    steps = ("seed", "evolve", "evolve.constraint", "evolved")
    with RecordStore() as store:
        for number, step in enumerate(steps):
            store.put(record(number, lineage=Lineage(step), status="kept" if number % 2 else "pending"))
        assert [r.lineage.step for r in store.records(step="evolve")] == ["evolve", "evolve.constraint"]
        assert [r.lineage.step for r in store.records(status="kept")] == ["evolve", "evolved"]
        assert store.counts()["seed", "pending"] == 1


def test_the_worst_verdict_counts_until_a_person_speaks() -> None:
    with RecordStore() as store:
        made = record()
        store.put(made)
        assert store.judge(made.id, "a", "kept") == "kept"
        assert store.judge(made.id, "b", "flagged", [Reason("b", "odd")]) == "flagged"
        assert store.judge(made.id, "c", "rejected", [Reason("c", "bad")]) == "rejected"
        assert store.judge(made.id, "c", "kept") == "flagged", "a judge that speaks again takes back its word"
        assert store.judge(made.id, REVIEW, "kept") == "kept"
        assert store.judge(made.id, "c", "rejected") == "kept"
        assert store.judge(made.id, REVIEW, "pending") == "rejected", "undone"
        assert [reason.name for reason in store.get(made.id).reasons] == ["b"]  # type: ignore[union-attr]


def test_a_verdict_on_no_record_is_refused() -> None:
    with RecordStore() as store, pytest.raises(KeyError):
        store.judge("0" * 16, "a", "kept")


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to look at" * 30)
    with pytest.raises(GenerationError, match=r"notes\.txt: records cannot be kept there"):
        RecordStore(path)


_WRITE = """
import sys
from pathlib import Path
from tests.training.generation.test_store import record
from ift_training.data.generation.record import Reason
from ift_training.data.generation.store import RecordStore

with RecordStore(Path(sys.argv[1])) as store:
    for number in range(0, 1000, 2):
        pair = [record(number).judged("kept", Reason("maker", "new")), record(number + 1)]
        if store.put_all(pair):
            store.judge(pair[1].id, "filter", "flagged", [Reason("filter", "odd", number)])
            print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_writer_loses_only_what_was_in_flight(tmp_path: Path, seed: int) -> None:
    """Killed at random moments until it gets through: nothing reported is missing, no half of a pair is there."""
    path, rng, said = tmp_path / "r.sqlite", random.Random(seed), set[int]()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    kills = 0
    while True:
        command = [sys.executable, "-c", _WRITE, str(path)]
        writer = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        wanted = rng.randint(1, 120)
        if kills < 4:
            reported = [line for _, line in zip(range(wanted), writer.stdout, strict=False)]
            time.sleep(rng.random() / 100)
            writer.send_signal(signal.SIGKILL)
            kills += 1
        else:
            reported = list(writer.stdout)
        said |= {int(line) for line in [*reported, *writer.stdout.read().split()] if line.strip()}
        ended = writer.wait()
        with RecordStore(path) as store:
            places = [found.lineage.place for found in store.records()]
            assert places == list(range(len(places))), "pairs are whole and in order"
            assert all(number + 1 < len(places) for number in said)
            flagged = {found.lineage.place for found in store.records(status="flagged")}
            assert {number + 1 for number in said} <= flagged
        if ended == 0:
            break
    assert len(places) == 1000


@pytest.mark.parametrize("made", [full(), replace(full(), history=()), record(), replace(full(), context="")])
def test_the_trainer_reads_what_is_written(made: GeneratedRecord) -> None:
    read = parse_record(made.line())
    assert read.response == made.response and read.checks == made.checks
    again = of_record(read, made.lineage)
    assert (again.instruction, again.context, again.history) == (made.instruction, made.context, made.history)
