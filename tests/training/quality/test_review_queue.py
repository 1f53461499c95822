"""The queue of flagged records: nobody shares one, nothing is lost, everything can be undone."""

from __future__ import annotations

import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ift_training.data.generation.record import GeneratedRecord, Lineage, Reason
from ift_training.data.generation.store import REVIEW, RecordStore
from ift_training.data.quality.errors import QualityError
from ift_training.data.quality.review.agreement import agreements, cohens_kappa
from ift_training.data.quality.review.queue import EDIT_STEP, SECOND, SETTLED, NotYoursError, ReviewQueue

_REASONS = ("contradiction", "coherence", "personal")


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    found = RecordStore(tmp_path / "r.sqlite")
    for number in range(12):
        record = GeneratedRecord(f"Say {number}.", f"It is {number}.", Lineage("made", place=number), "about it")
        found.put(record)
        found.judge(record.id, "filter", "flagged", [Reason(_REASONS[number % 3], "why", 0.4, 0.5)])
    kept = GeneratedRecord("Fine.", "Fine.", Lineage("made"))
    found.put(kept.judged("kept"))
    return found


def _queue(store: RecordStore, overlap: float = 0.0, clock: _Clock | None = None) -> ReviewQueue:
    return ReviewQueue(store, overlap=overlap, lease=60, clock=clock or _Clock())


def _id(queue: ReviewQueue, reviewer: str, reason: str = "") -> str:
    found = queue.current(reviewer, reason)
    assert found is not None
    return found.record.id


def test_a_record_stays_with_its_reviewer_until_it_is_decided(store: RecordStore) -> None:
    queue = _queue(store)
    first = _id(queue, "ann")
    assert _id(queue, "ann") == first and _id(_queue(store), "ann") == first, "after a reload, and a restart"
    assert _id(queue, "ben") != first
    queue.decide("ann", first, "accept")
    assert _id(queue, "ann") != first
    found = store.get(first)
    assert (
        found is not None
        and found.status == "kept"
        and store.verdicts(first)[REVIEW][1][0].message == "accepted by ann"
    )


def test_two_reviewers_never_have_the_same_record(store: RecordStore) -> None:
    """From two queues on one file, in threads, as two servers would."""
    queues = [_queue(store), _queue(RecordStore(store.path))]

    def work(number: int) -> list[str]:
        name, queue, decided = f"reviewer {number}", queues[number % 2], list[str]()
        while (found := queue.current(name)) is not None:
            queue.decide(name, found.record.id, random.Random(number).choice(("accept", "reject")))
            decided.append(found.record.id)
        return decided

    with ThreadPoolExecutor(4) as pool:
        every = [record for decided in pool.map(work, range(4)) for record in decided]
    assert len(every) == len(set(every)) == 12


def test_reviewers_who_choose_a_reason_do_not_wait_for_each_others_records(store: RecordStore) -> None:
    """Reasons are the store's; what one decides is written to the same store and file meanwhile."""
    queues = [_queue(store), _queue(store)]

    def work(number: int) -> int:
        name, queue, decided = f"reviewer {number}", queues[number % 2], 0
        while (found := queue.current(name, reason=_REASONS[0])) is not None:
            queue.decide(name, found.record.id, "accept")
            decided += 1
        return decided

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 4


def test_a_record_that_nobody_touches_goes_to_another_and_its_first_reviewer_is_told(store: RecordStore) -> None:
    clock = _Clock()
    queue = _queue(store, clock=clock)
    first = _id(queue, "ann")
    clock.now += 61
    assert _id(queue, "ben") == first
    with pytest.raises(NotYoursError):
        queue.decide("ann", first, "accept")
    with pytest.raises(NotYoursError):
        queue.save_draft("ann", first, {"instruction": "a", "context": "", "response": "b"})
    assert _id(queue, "ann") != first


def test_an_edit_is_a_record_of_its_own_with_its_lineage(store: RecordStore) -> None:
    queue = _queue(store)
    first = _id(queue, "ann")
    queue.decide("ann", first, "edit", {"instruction": "Say it.", "context": "", "response": "So be it."})
    (edited,) = store.records(step=EDIT_STEP)
    assert (edited.instruction, edited.context, edited.response) == ("Say it.", "", "So be it.")
    assert edited.status == "kept" and edited.lineage.parents == (first,)
    old = store.get(first)
    assert old is not None and old.status == "rejected" and old.response == "It is 0."


@pytest.mark.parametrize(
    "edited", [None, {"instruction": " ", "context": "", "response": "x"}, {"instruction": "x"}, {"instruction": 1}]
)
def test_an_edit_without_an_answer_is_refused(store: RecordStore, edited: dict[str, str] | None) -> None:
    queue = _queue(store)
    with pytest.raises(QualityError, match="edited"):
        queue.decide("ann", _id(queue, "ann"), "edit", edited)


def test_every_decision_can_be_undone_with_what_was_edited(store: RecordStore) -> None:
    queue = _queue(store)
    assert queue.undo("ann") is None
    draft = {"instruction": "Say it.", "context": "c", "response": "So be it."}
    decided = []
    for choice in ("accept", "edit", "reject"):
        decided.append(_id(queue, "ann"))
        queue.decide("ann", decided[-1], choice, draft if choice == "edit" else None)  # type: ignore[arg-type]
    assert [queue.undo("ann") for _ in range(4)] == [*decided[::-1], None]
    assert all(store.get(record).status == "flagged" for record in decided)  # type: ignore[union-attr]
    (edited,) = store.records(step=EDIT_STEP)
    assert edited.status == "rejected", "what an undone edit made is not trained on"
    assert _id(queue, "ann") == decided[0]
    queue.decide("ann", decided[0], "accept")
    second = queue.current("ann")
    assert second is not None and second.record.id == decided[1] and second.draft == draft
    queue.decide("ann", decided[1], "edit", draft)
    assert [record.status for record in store.records(step=EDIT_STEP)] == ["rejected", "kept"]


def test_a_draft_is_there_after_a_restart_and_gone_with_the_decision(store: RecordStore) -> None:
    queue, draft = _queue(store), {"instruction": "a", "context": "b", "response": "c"}
    first = _id(queue, "ann")
    queue.save_draft("ann", first, draft)
    queue.close()
    again = _queue(store)
    found = again.current("ann")
    assert found is not None and found.draft == draft
    again.save_draft("ann", first, None)
    found = again.current("ann")
    assert found is not None and found.draft is None


def test_reasons_choose_records(store: RecordStore) -> None:
    queue = _queue(store)
    assert queue.reasons() == dict.fromkeys(sorted(_REASONS), 4)
    for left in (3, 2, 1, 0):
        found = queue.current("ann", "personal")
        assert found is not None and found.record.reasons[0].name == "personal"
        queue.decide("ann", found.record.id, "reject")
        assert queue.reasons().get("personal", 0) == left
    assert queue.current("ann", "personal") is None and queue.current("ann") is not None
    assert queue.progress("ann") == {"waiting": 8, "decided": 4, "own": 4}


def test_a_second_opinion_is_told_and_a_dispute_is_settled(store: RecordStore) -> None:
    queue = _queue(store, overlap=1.0)
    first, other = _id(queue, "ann"), "reject"
    queue.decide("ann", first, "accept")
    found = queue.current("ben")
    assert found is not None and found.record.id == first and found.round == SECOND
    queue.decide("ben", first, other)  # type: ignore[arg-type]
    (agreement,) = queue.agreement()
    assert (agreement.first, agreement.second, agreement.records, agreement.agreed) == ("ann", "ben", 1, 0)
    assert store.get(first).status == "kept", "a second opinion changes nothing"  # type: ignore[union-attr]
    disputed = queue.current("cid")
    assert disputed is not None and disputed.record.id == first and disputed.round == SETTLED
    assert disputed.earlier == ("ann: accept", "ben: reject")
    with pytest.raises(NotYoursError, match="now"):
        queue.undo("ann")
    queue.decide("cid", first, "reject")
    with pytest.raises(NotYoursError, match="since"):
        queue.undo("ann")
    assert store.get(first).status == "rejected"  # type: ignore[union-attr]
    assert queue.undo("cid") == first and store.get(first).status == "kept"  # type: ignore[union-attr]


def test_a_decision_that_was_written_before_a_kill_counts(store: RecordStore) -> None:
    queue = _queue(store)
    first = _id(queue, "ann")
    with sqlite3.connect(store.path or "") as database:  # as if the process had died right after its own commit
        columns = "record, round, reviewer, choice, edited, time"
        database.execute(f"INSERT INTO reviews ({columns}) VALUES (?, 1, 'ann', 'reject', 'null', 0)", (first,))
    queue.close()
    _queue(store)
    assert store.get(first).status == "rejected"  # type: ignore[union-attr]


def test_kappa_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn (extra data)")
    rng = random.Random(0)
    for _ in range(20):
        pairs = [(rng.choice("aer"), rng.choice("aer")) for _ in range(rng.randrange(3, 40))]
        expected = metrics.cohen_kappa_score([a for a, _ in pairs], [b for _, b in pairs])
        assert cohens_kappa(pairs) == pytest.approx(expected)
    assert cohens_kappa([]) is None and cohens_kappa([("a", "a")]) is None
    (found,) = agreements([("b", "accept", "a", "reject"), ("a", "reject", "b", "reject")])
    assert (found.first, found.second, found.records, found.agreed) == ("a", "b", 2, 1)
