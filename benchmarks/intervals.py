"""How sure a share or a difference of paired outcomes is: Wilson, McNemar, and the bootstrap over pairs."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

_NORMAL_975 = 1.959963984540054


def wilson(passed: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); (0, 1) of nothing."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = passed / total, _NORMAL_975**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _NORMAL_975 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Two-sided exact p that the pairs in which only one passed are as likely either way (McNemar 1947)."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    total, fewer = only_first + only_second, min(only_first, only_second)
    tail: float = sum(math.comb(total, k) for k in range(fewer + 1)) / 2**total
    return min(1.0, 2 * tail)


def bootstrap(
    first: Sequence[float], second: Sequence[float], *, draws: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of ``second - first`` over pairs drawn with replacement."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    rng, size = random.Random(seed), len(differences)
    means = sorted(sum(rng.choices(differences, k=size)) / size for _ in range(draws))
    return means[int(0.025 * draws)], means[int(0.975 * draws) - 1]
