"""From scores to statuses: thresholds, the worst filter, and acceptance balanced over levels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_training.data.quality.balance import balanced, rates
from ift_training.data.quality.decisions import FLAGGED, REJECTED, decide
from ift_training.data.quality.filter import Finding
from ift_training.data.quality.recipe import QualityRecipe
from ift_training.recipe_file import RecipeError

_THRESHOLDS = QualityRecipe.parse(
    {"coherence": {"flag": 0.4, "reject": 0.2}, "repetition": {"flag": 0.3, "reject": 0.6}, "personal": {"flag": 0.5}}
).thresholds()


@pytest.mark.parametrize(
    ("name", "score", "status"),
    [
        ("coherence", 0.41, "kept"), ("coherence", 0.4, "flagged"), ("coherence", 0.21, "flagged"),
        ("coherence", 0.2, "rejected"), ("coherence", 0.0, "rejected"),
        ("repetition", 0.29, "kept"), ("repetition", 0.3, "flagged"), ("repetition", 0.6, "rejected"),
        ("personal", 0.49, "kept"), ("personal", 1.0, "flagged"), ("complexity", 0.0, "kept"),
    ],
)  # fmt: skip
def test_a_score_at_a_threshold_is_as_bad_as_it(name: str, score: float, status: str) -> None:
    found = decide({name: Finding(score, "why")}, _THRESHOLDS)
    assert found.status == status and [r.name for r in found.reasons] == ([] if status == "kept" else [name])


@given(st.dictionaries(st.sampled_from(["coherence", "repetition", "personal"]), st.floats(0, 1), min_size=1))
def test_the_worst_filter_decides(scores: dict[str, float]) -> None:
    order = ("kept", "flagged", "rejected")
    alone = [decide({name: Finding(score, "why")}, _THRESHOLDS).status for name, score in scores.items()]
    together = decide({name: Finding(score, "why") for name, score in scores.items()}, _THRESHOLDS)
    assert together.status == max(alone, key=order.index)
    assert [r.score for r in together.reasons] == [scores[r.name] for r in together.reasons]


def test_a_question_without_an_answer_flags_and_a_filter_without_a_score_does_nothing() -> None:
    assert decide({"coherence": Finding(None, "not answered")}, _THRESHOLDS).status == "flagged"
    assert decide({"coherence": Finding(None)}, _THRESHOLDS).status == "kept"


def test_only_matters_of_degree_can_be_taken_back() -> None:
    assert decide({"coherence": Finding(0.3, "x")}, _THRESHOLDS).is_soft
    assert not decide({"coherence": Finding(0.3, "x"), "personal": Finding(1.0, "y")}, _THRESHOLDS).is_soft


_RECORDS = st.lists(
    st.tuples(st.integers(1, 5), st.floats(0, 1.5), st.booleans()), min_size=1, max_size=200
)  # fmt: skip


@given(_RECORDS, st.floats(0, 0.5))
def test_balancing_keeps_nothing_rejected_and_takes_back_matters_of_degree_only(
    records: list[tuple[int, float, bool]], slack: float
) -> None:
    levels, severities, soft = (np.array(column) for column in zip(*records, strict=True))
    kept = balanced(levels.astype(np.int8), severities, soft, slack)
    before = severities < FLAGGED
    assert not (kept & (severities >= REJECTED)).any()
    assert not (kept & ~before & ~soft).any()
    rate = before.mean()
    for found in rates(levels.astype(np.int8), before, kept):
        own = levels == found.level
        attainable = int((before[own] | (soft[own] & (severities[own] < REJECTED))).sum())
        assert found.kept_after <= max(found.kept_before, np.ceil((rate + slack) * found.records))
        least = np.floor((rate - slack) * found.records)
        assert found.kept_after >= min(least, attainable) or found.kept_after >= found.kept_before
    assert np.array_equal(kept, balanced(levels.astype(np.int8), severities, soft, slack))


def test_rates_come_together_as_far_as_there_are_records_for_it() -> None:
    levels = np.repeat(np.array([1, 5], np.int8), 100)
    severities = np.concatenate([np.linspace(0, 0.49, 100), np.linspace(0.2, 0.9, 100)])
    soft = np.ones(200, np.bool_)
    easy, hard = rates(levels, severities < FLAGGED, balanced(levels, severities, soft, 0.05))
    assert easy.after - hard.after <= 0.12 < easy.before - hard.before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "spark"}, r"engine: .*'local' or 'ray'"),
        ({"coherence": {"flag": 0.1, "reject": 0.2}}, r"coherence.*above flag"),
        ({"repetition": {"flag": 0.5, "reject": 0.2}}, r"repetition.*below flag"),
        ({"coherense": {}}, r"coherense: is not known; did you mean `coherence`"),
        ({"format": {"checks": [{"type": "nothing"}]}}, r"format.checks"),
        ({"duplicates": {"flag": 0.0}}, r"duplicates.flag"),
        ({"coherence": {"flag": float("nan")}}, r"coherence.flag"),
    ],
)
def test_a_wrong_recipe_is_refused_by_its_field(given: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        QualityRecipe.parse(given)
