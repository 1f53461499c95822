"""How far reviewers agree on the records that two of them saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two reviewers. records: seen by both. agreed: decided alike. kappa: Cohen's, None if chance explains all."""

    first: str
    second: str
    records: int
    agreed: int
    kappa: float | None


def agreements(decisions: Iterable[tuple[str, str, str, str]]) -> list[Agreement]:
    """Of (reviewer, decision, other reviewer, other decision), one a record; pairs in the order of their names."""
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for one, decision, other, second in decisions:
        if one <= other:
            pairs.setdefault((one, other), []).append((decision, second))
        else:
            pairs.setdefault((other, one), []).append((second, decision))
    return [
        Agreement(first, second, len(own), sum(a == b for a, b in own), cohens_kappa(own))
        for (first, second), own in sorted(pairs.items())
    ]


def cohens_kappa(decisions: list[tuple[str, str]]) -> float | None:
    """Agreement beyond chance (Cohen 1960): (p_o - p_e) / (1 - p_e); None where p_e is 1 or there is nothing."""
    if not decisions:
        return None
    count = len(decisions)
    observed = sum(a == b for a, b in decisions) / count
    first, second = Counter(a for a, _ in decisions), Counter(b for _, b in decisions)
    expected = sum(first[name] * second[name] for name in first) / count**2
    return None if expected == 1 else (observed - expected) / (1 - expected)
