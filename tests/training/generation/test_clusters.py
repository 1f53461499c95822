"""Which tasks are rare: clusters of vectors that are known to be in groups, and who is chosen."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from scipy.stats import entropy

from ift_training.data.embedding import SentenceEncoder, Vectors
from ift_training.data.generation.evolve.clusters import (
    OUTSIDE,
    Clusters,
    evenness,
    plot_distribution,
    under_represented,
)


class _Groups:
    """Vectors of texts such as "2 17": near the axis of their first number; of "x", near none."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        found = np.zeros((len(texts), 8), np.float32)
        for row, text in zip(found, texts, strict=True):
            group, _, number = text.partition(" ")
            noise = np.random.default_rng(int(number or 0)).normal(0, 0.02, 8)
            row[:] = noise if group != "x" else np.sign(noise)
            if group != "x":
                row[int(group)] += 1
            row /= np.linalg.norm(row)
        return found


def _clusters(texts: Sequence[str], smallest: int = 5) -> Clusters:
    return Clusters(cast(SentenceEncoder, _Groups()), texts, smallest)


_TEXTS = [f"0 {n}" for n in range(60)] + [f"1 {n}" for n in range(60, 75)] + [f"2 {n}" for n in range(75, 82)]


def test_groups_are_found_and_later_texts_belong_to_the_nearest() -> None:
    clusters = _clusters(_TEXTS)
    labels = clusters.of(_TEXTS)
    by_group = [{label for text, label in zip(_TEXTS, labels, strict=True) if text[0] == group} for group in "012"]
    assert len(clusters.names) == 3
    assert all(len(found - {OUTSIDE}) == 1 for found in by_group)
    assert len(set.union(*by_group) - {OUTSIDE}) == 3
    (first,) = by_group[0] - {OUTSIDE}
    assert clusters.of(["x 5"]) == [OUTSIDE]
    assert clusters.of([_TEXTS[0]]) == [first]
    assert clusters.of([]) == []


def test_few_texts_are_one_cluster() -> None:
    assert _clusters(["0 1", "1 2", "2 3"]).of(["0 1", "1 2", "2 3"]) == [0, 0, 0]


def test_a_cluster_is_the_likelier_the_fewer_texts_it_has() -> None:
    labels = [0] * 60 + [1] * 15 + [2] * 7
    chosen = under_represented(labels, 6000, random.Random(0))
    counts = Counter(labels[place] for place in chosen)
    weights = {label: 1 / labels.count(label) for label in (0, 1, 2)}
    assert counts[2] > counts[1] > counts[0], "the rarer, the more often"
    for label, weight in weights.items():
        assert counts[label] / 6000 == pytest.approx(weight / sum(weights.values()), abs=0.03)


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 1, 2, 3], [0] * 50 + [1, 2, OUTSIDE]])
def test_evenness_is_entropy_over_its_largest_value(labels: list[int]) -> None:
    counts = list(Counter(labels).values())
    assert evenness(labels) == pytest.approx(entropy(counts) / np.log(len(counts)))


def test_one_cluster_is_even() -> None:
    assert evenness([3, 3]) == evenness([]) == 1.0


def test_the_picture_has_what_is_told(tmp_path: Path) -> None:
    found = plot_distribution([0, 0, 1, OUTSIDE], [0, 0, 1, 1, 1, OUTSIDE], tmp_path / "d.png")
    assert found["clusters"] == {"0": [2, 2], "1": [1, 3], "none": [1, 1]}
    assert list(found["clusters"]) == ["0", "1", "none"] and len(found["evenness"]) == 2
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    assert plot_distribution([0], [0], None)["evenness"] == [1.0, 1.0]
