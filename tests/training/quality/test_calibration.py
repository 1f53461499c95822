"""The labelled sample is what its generator makes, and the curves are those of scikit-learn."""

from __future__ import annotations

import json
from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from ift_training.data.quality.calibration.measure import Judged, best, curve, point
from ift_training.data.quality.calibration.report import calibration, markdown_table, write_calibration
from ift_training.data.quality.calibration.sample import FAULTS, FILE, make_sample, read_sample, write_sample
from ift_training.data.quality.filters import GOOD
from ift_training.data.quality.recipe import QualityRecipe

_TEXT_ONLY = {"coherence": {"use": False}, "shared_meaning": {"use": False}, "references": {"use": False}}


def test_the_committed_sample_is_what_the_generator_makes() -> None:
    committed = (resources.files("ift_training.data.quality.calibration") / FILE).read_text(encoding="utf-8")
    assert committed == write_sample(make_sample())
    assert read_sample() == make_sample()


def test_there_are_enough_pairs_of_every_fault_in_both_halves() -> None:
    counts = Counter((one.fault, one.half) for one in read_sample())
    assert sum(counts.values()) >= 300
    assert all(counts[fault, half] >= 6 for fault in FAULTS for half in ("tune", "test"))
    assert counts["", "tune"] >= 100 and counts["", "test"] >= 100
    assert {name for names in FAULTS.values() for name in names} <= set(GOOD)


@pytest.mark.parametrize("good", ["high", "low"])
def test_precision_and_recall_are_those_of_scikit_learn(good: str) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn (extra data)")
    rng = np.random.default_rng(0)
    own = rng.random(200) < 0.3
    scores = np.round(np.clip(rng.normal(0.4 + 0.3 * (own if good == "low" else ~own), 0.2), 0, 1), 2)
    rows = [Judged(float(s), not o, bool(o), "f" if o else "", "tune") for s, o in zip(scores, own, strict=True)]
    precision, recall, thresholds = metrics.precision_recall_curve(own, scores if good == "low" else -scores)
    expected = {round(abs(float(t)), 2): (p, r) for t, p, r in zip(thresholds, precision, recall, strict=False)}
    found = {p.threshold: (p.precision, p.recall) for p in curve(rows, good)}
    assert set(found) == set(expected)
    assert all(found[t] == pytest.approx(expected[t]) for t in found)
    f1 = best(rows, good)
    assert f1 is not None and f1.f1 == pytest.approx(max(2 * p * r / (p + r) for p, r in expected.values() if p + r))
    assert point(rows, f1.threshold, good) == f1


def test_filters_of_text_find_most_planted_faults_and_few_good_pairs(tmp_path: Path) -> None:
    found = calibration(QualityRecipe.parse(_TEXT_ONLY))
    assert [one.name for one in found.filters] == [
        "format", "alignment", "repetition", "contradiction", "personal", "unsafe", "shared_runs", "duplicates",
    ]  # fmt: skip
    for one in found.filters:
        told = one.flag["test"]
        assert told is not None and told.precision >= 0.9 and told.recall >= 0.7, one.name
    write_calibration(found, tmp_path)
    values = json.loads((tmp_path / "calibration.json").read_text())
    assert {one["name"] for one in values["filters"]} == {one.name for one in found.filters}
    assert all(len(one["curves"]["test"]) >= 2 for one in values["filters"])
    assert (tmp_path / "calibration.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "calibration.md").read_text() == markdown_table(found)
    assert found.to_json() == calibration(QualityRecipe.parse(_TEXT_ONLY)).to_json()
