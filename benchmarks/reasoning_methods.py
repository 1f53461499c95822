"""The methods that the reasoning benchmark compares, and what each is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from ift_serve.client import AnswerSpan, BestOf, Branch, ConfidenceExit, EntropyExit, Reasoning, Trace, Vote

_NUMBER = AnswerSpan("number")


@dataclass(frozen=True)
class Method:
    """One way to answer. against: names of the methods that it is compared with, problem by problem."""

    name: str
    reasoning: Reasoning | None
    temperature: float = 0.0
    against: tuple[str, ...] = ("direct",)


@dataclass(frozen=True)
class Widths:
    """How many sequences: the k of branch, the n of vote and of best-of."""

    branch: tuple[int, ...] = (2, 5, 10)
    vote: tuple[int, ...] = (4, 8, 16, 32)
    best_of: tuple[int, ...] = (4, 8, 16, 32)


def methods(
    widths: Widths, temperature: float, *, markers: tuple[str, str] | None, budget: int, use_markers: bool
) -> list[Method]:
    """All of them. A vote and a best-of of one n draw as many samples of one length, so their budgets are equal.

    markers: typed ones, forced around a thought; None: those of the model. use_markers: whether there are any.
    """
    found = [Method("direct", None, against=())]
    if use_markers:
        found += _traces(markers, budget)
    found += [Method(f"branch k={k}", Branch(width=k, aggregate="max", span=_NUMBER)) for k in widths.branch]
    if widths.branch:
        k = max(widths.branch)
        by_sum = Branch(width=k, aggregate="sum", span=_NUMBER)
        found.append(Method(f"branch k={k}, by sum", by_sum, against=("direct", f"branch k={k}")))
    for n in widths.vote:
        full = f"vote n={n}"
        everything = Vote(samples=n, stop="all", span=_NUMBER)
        found.append(Method(full, everything, temperature))
        early = Vote(samples=n, stop="posterior", span=_NUMBER)
        found.append(Method(f"{full}, early stop", early, temperature, (full,)))
    for n in widths.best_of:
        pair = ("direct", f"vote n={n}") if n in widths.vote else ("direct",)
        found.append(Method(f"best of n={n}", BestOf(samples=n), temperature, pair))
    return found


def _traces(markers: tuple[str, str] | None, budget: int) -> list[Method]:
    opening, closing = markers or ("", "")

    def trace(early: ConfidenceExit | EntropyExit | None = None) -> Trace:
        return Trace(budget=budget, open_marker=opening, close_marker=closing, early_exit=early)

    pair = ("direct", "trace")
    return [
        Method("trace", trace()),
        Method("trace, early exit (DEER)", trace(ConfidenceExit()), against=pair),
        Method("trace, early exit (EAT)", trace(EntropyExit()), against=pair),
    ]
