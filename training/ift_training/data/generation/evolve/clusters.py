"""Which parts of a pool are under-represented: clusters of instructions by meaning, before and after."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ift_serve.checks.errors import MissingExtraError
from ift_training.data.embedding import SentenceEncoder, Vectors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTSIDE = -1
"""The cluster of texts that are in none."""


class Clusters:
    """Clusters of the texts that a run begins with, by HDBSCAN (Campello et al. 2013) over their vectors.

    Later texts belong to the cluster whose centre is nearest, if that is as near as the farthest of its own texts.
    ``smallest``: texts of a cluster at least. Raises MissingExtraError.
    """

    def __init__(self, encoder: SentenceEncoder, texts: Sequence[str], smallest: int) -> None:
        self._encoder = encoder
        vectors = encoder.encode(texts)
        labels = _labels(vectors, smallest)
        self.names: list[int] = sorted(set(labels) - {OUTSIDE})
        groups = [vectors[np.array([label == name for label in labels])] for name in self.names]
        self._centres = np.stack([_unit(group.mean(0)) for group in groups]) if groups else vectors[:0]
        pairs = zip(groups, self._centres, strict=True)
        self._reach = np.array([float((group @ centre).min()) for group, centre in pairs])

    def of(self, texts: Sequence[str]) -> list[int]:
        """The cluster of each text."""
        if not texts or not self.names:
            return [OUTSIDE] * len(texts)
        near = self._encoder.encode(texts) @ self._centres.T
        best = near.argmax(1)
        inside = near[np.arange(len(texts)), best] >= self._reach[best] - 1e-6
        pairs = zip(best.tolist(), inside.tolist(), strict=True)
        return [self.names[place] if is_in else OUTSIDE for place, is_in in pairs]


def _labels(vectors: Vectors, smallest: int) -> list[int]:
    if len(vectors) < 2 * smallest:
        return [0] * len(vectors)
    try:
        from sklearn.cluster import HDBSCAN
    except ImportError as error:
        raise MissingExtraError("which tasks are rare", "scikit-learn", "data") from error
    found = HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(vectors.astype(np.float64))
    labels: list[int] = found.tolist()
    return labels


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def under_represented(labels: Sequence[int], count: int, rng: random.Random) -> list[int]:
    """Places of ``count`` texts; a cluster is the likelier the fewer texts it has. Some may come twice."""
    members: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        members.setdefault(label, []).append(place)
    names = sorted(members)
    weights = [1 / len(members[name]) for name in names]
    total = sum(weights)
    return [rng.choice(members[rng.choices(names, [w / total for w in weights])[0]]) for _ in range(count)]


def evenness(labels: Sequence[int]) -> float:
    """Entropy of the shares of the clusters over its largest possible value: 1 where all are of one size."""
    counts = Counter(labels)
    if len(counts) < 2:
        return 1.0
    total = sum(counts.values())
    return -sum(n / total * math.log(n / total) for n in counts.values()) / math.log(len(counts))


def plot_distribution(before: Sequence[int], after: Sequence[int], path: Path | None) -> dict[str, Any]:
    """Shares of the clusters before and after as a picture (PNG), if there is a place for it; the numbers in it.

    Clusters are in the order of their size before; what is in none is last.
    """
    first, second = Counter(before), Counter(after)
    names = sorted({*first, *second}, key=lambda name: (name == OUTSIDE, -first[name], name))
    if path is not None:
        _draw(names, first, second).savefig(path, dpi=110)
    numbers = {_name(name): [first[name], second[name]] for name in names}
    return {"clusters": numbers, "evenness": [evenness(before), evenness(after)]}


def _draw(names: Sequence[int], first: Counter[int], second: Counter[int]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 0.35 * len(names) + 2), 4.0), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(names))
    for offset, counts, when in ((-0.2, first, "before"), (0.2, second, "after")):
        total = max(1, counts.total())
        axes.bar(places + offset, [counts[name] / total for name in names], 0.4, label=f"{when} ({counts.total()})")
    axes.set_xticks(places, [_name(name) for name in names])
    axes.set_xlabel("cluster")
    axes.set_ylabel("share of the pool")
    axes.legend()
    return figure


def _name(cluster: int) -> str:
    return "none" if cluster == OUTSIDE else str(cluster)
