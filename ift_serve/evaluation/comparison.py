"""Two models on the same prompts: the difference, its interval, and what this sample could have shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ift_serve.evaluation.rows import Row

_DRAWS = 10_000
_Z_TEST, _Z_POWER = 1.959964, 0.841621
"""Two-sided 5 %, and 80 % power."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """``second`` minus ``first`` in the share of prompts kept whole, over the prompts that both answered.

    ``low``, ``high``: 95 % of a bootstrap of prompts. ``gained``, ``lost``: prompts that only the second, only the
    first keeps (with repeats: mostly). ``p_value``: exact McNemar test of these. ``smallest``: the smallest difference
    that such a sample shows in four of five cases.
    """

    task: str
    column: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    gained: int
    lost: int
    p_value: float
    smallest: float
    prompts: int
    left_out: int

    @property
    def is_significant(self) -> bool:
        """Whether the interval and the test agree that there is a difference."""
        return self.p_value < 0.05 and not self.low <= 0.0 <= self.high


@dataclass(frozen=True, slots=True)
class FamilyComparison(Comparison):
    """The same for the constraints of one family. ``q_value``: the p-value corrected for looking at all families.

    ``gained``, ``lost``: prompts of which only the second, only the first keeps more than half of the family's
    constraints.
    """

    family: str
    q_value: float

    @property
    def is_significant(self) -> bool:
        """As of :class:`Comparison`, by the corrected p-value."""
        return self.q_value < 0.05 and not self.low <= 0.0 <= self.high


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Corrected p-values, in the order of the given ones (Benjamini and Hochberg 1995)."""
    count = len(p_values)
    smallest, found = 1.0, [1.0] * count
    for rank, index in reversed(list(enumerate(sorted(range(count), key=p_values.__getitem__), 1))):
        smallest = min(smallest, p_values[index] * count / rank)
        found[index] = smallest
    return found


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value: binomial of the discordant pairs with one half (McNemar 1947)."""
    count = gained + lost
    if count == 0:
        return 1.0
    tail = sum(math.comb(count, k) for k in range(min(gained, lost) + 1))
    return min(1.0, math.ldexp(tail, 1 - count) if count < 1000 else 2 * math.exp(_log(tail) - count * math.log(2)))


def compare(rows: Sequence[Row], first: str, second: str, *, seed: int = 0) -> list[Comparison]:
    """Of two models, for each task and column that both have: prompts kept whole."""
    return [
        _compared(task, column, (first, second), shares, seed)
        for task, column, own in _common(rows, first, second)
        if (shares := [_means((row.cluster, [row.passes(column)]) for row in found) for found in own])
        and shares[0].keys() & shares[1].keys()
    ]


def compare_families(rows: Sequence[Row], first: str, second: str, *, seed: int = 0) -> list[FamilyComparison]:
    """Of two models, for each task, column and family that both have: the family's constraints kept in each prompt."""
    found = []
    for task, column, own in _common(rows, first, second):
        compared = {}
        for family in dict.fromkeys(v.family for row in own[0] for v in row.verdicts[column]):
            kept = [
                _means((row.cluster, [v.passed for v in row.verdicts[column] if v.family == family]) for row in rows_of)
                for rows_of in own
            ]
            if kept[0].keys() & kept[1].keys():
                compared[family] = _compared(task, column, (first, second), kept, seed)
        q_values = benjamini_hochberg([comparison.p_value for comparison in compared.values()])
        found += [
            FamilyComparison(**asdict(comparison), family=family, q_value=q_value)
            for (family, comparison), q_value in zip(compared.items(), q_values, strict=True)
        ]
    return found


def _common(rows: Sequence[Row], first: str, second: str) -> Iterator[tuple[str, str, tuple[list[Row], list[Row]]]]:
    """Judged rows of both models, by task and column that both have."""
    own = {name: [row for row in rows if row.model == name and row.verdicts] for name in (first, second)}
    for task in dict.fromkeys(row.task for row in own[first]):
        a, b = ([row for row in own[name] if row.task == task] for name in (first, second))
        for column in a[0].verdicts if b else ():
            yield task, column, (a, b)


def _compared(
    task: str, column: str, models: tuple[str, str], shares: Sequence[Mapping[str, float]], seed: int
) -> Comparison:
    """``shares``: of each prompt, by key, of the first and of the second model."""
    keys = [key for key in shares[0] if key in shares[1]]
    a, b = (np.array([own[key] for key in keys], dtype=np.float64) for own in shares)
    differences = b - a
    count = len(differences)
    low, high = bootstrap(differences, seed)
    gained, lost = int(np.sum((b > 0.5) & (a <= 0.5))), int(np.sum((a > 0.5) & (b <= 0.5)))
    # Without any difference the variance is unknown, not zero: as if one prompt were discordant.
    variance = max(float(np.var(differences, ddof=1)) if count > 1 else 1.0, 1.0 / count)
    smallest = min(1.0, (_Z_TEST + _Z_POWER) * math.sqrt(variance / count))
    left_out = len(shares[0].keys() | shares[1].keys()) - count
    return Comparison(
        task,
        column,
        *models,
        difference=float(differences.mean()),
        low=low,
        high=high,
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost),
        smallest=smallest,
        prompts=count,
        left_out=left_out,
    )


def bootstrap(differences: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean over resampled prompts (Efron 1979). ``differences``: [prompts]."""
    rng = np.random.default_rng(seed)
    count = len(differences)
    means = np.empty(_DRAWS)
    # In portions: ten thousand draws of thousands of prompts at once would take hundreds of megabytes.
    portion = max(1, 2_000_000 // count)
    for start in range(0, _DRAWS, portion):
        drawn = rng.integers(0, count, size=(min(portion, _DRAWS - start), count))
        means[start : start + len(drawn)] = differences[drawn].mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def _means(passes: Iterable[tuple[str, list[bool]]]) -> dict[str, float]:
    """The share of what is kept of each prompt, over samples and wordings; prompts without anything are left out."""
    every: dict[str, list[bool]] = {}
    for key, found in passes:
        if found:
            every.setdefault(key, []).extend(found)
    return {key: sum(found) / len(found) for key, found in every.items()}


def _log(number: int) -> float:
    """Natural logarithm of an integer of any size."""
    shift = max(0, number.bit_length() - 53)
    return math.log(number >> shift) + shift * math.log(2)
