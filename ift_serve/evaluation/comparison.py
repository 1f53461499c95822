"""Two models on the same prompts: the difference, its interval, and what this sample could have shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value: binomial of the discordant pairs with one half (McNemar 1947)."""
    count = gained + lost
    if count == 0:
        return 1.0
    tail = sum(math.comb(count, k) for k in range(min(gained, lost) + 1))
    return min(1.0, math.ldexp(tail, 1 - count) if count < 1000 else 2 * math.exp(_log(tail) - count * math.log(2)))


def compare(rows: Sequence[Row], first: str, second: str, *, seed: int = 0) -> list[Comparison]:
    """Of two models, for each task and column that both have."""
    found = []
    own = {name: [row for row in rows if row.model == name and row.verdicts] for name in (first, second)}
    for task in dict.fromkeys(row.task for row in own[first]):
        of_task = {name: [row for row in own[name] if row.task == task] for name in own}
        if not of_task[second]:
            continue
        for column in of_task[first][0].verdicts:
            shares = {name: _shares(of_task[name], column) for name in own}
            keys = [key for key in shares[first] if key in shares[second]]
            left_out = len(shares[first].keys() | shares[second].keys()) - len(keys)
            a, b = (np.array([shares[name][key] for key in keys], dtype=np.float64) for name in (first, second))
            if keys:
                found.append(_compared(task, column, first, second, a, b, left_out, seed))
    return found


def _compared(
    task: str, column: str, first: str, second: str, a: np.ndarray, b: np.ndarray, left_out: int, seed: int
) -> Comparison:
    differences = b - a
    count = len(differences)
    low, high = bootstrap(differences, seed)
    gained, lost = int(np.sum((b > 0.5) & (a <= 0.5))), int(np.sum((a > 0.5) & (b <= 0.5)))
    # Without any difference the variance is unknown, not zero: as if one prompt were discordant.
    variance = max(float(np.var(differences, ddof=1)) if count > 1 else 1.0, 1.0 / count)
    smallest = min(1.0, (_Z_TEST + _Z_POWER) * math.sqrt(variance / count))
    return Comparison(
        task, column, first, second, float(differences.mean()), low, high, gained, lost, mcnemar(gained, lost),
        smallest, count, left_out,
    )  # fmt: skip


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


def _shares(rows: Sequence[Row], column: str) -> dict[str, float]:
    """Share of the samples of each prompt that keep it whole."""
    passes: dict[str, list[bool]] = {}
    for row in rows:
        passes.setdefault(row.key, []).append(row.passes(column))
    return {key: sum(found) / len(found) for key, found in passes.items()}


def _log(number: int) -> float:
    """Natural logarithm of an integer of any size."""
    shift = max(0, number.bit_length() - 53)
    return math.log(number >> shift) + shift * math.log(2)
