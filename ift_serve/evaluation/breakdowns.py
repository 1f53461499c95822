"""Scores broken down by what items are labelled with: curves, reliability over rewordings, turns of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ift_serve.evaluation.rows import Row
from ift_serve.evaluation.scores import wilson
from ift_serve.evaluation.tasks.task import CONSTRAINTS, COUSIN, COUSIN_OF, ConstraintVerdict


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Prompts of one number of constraints. ``kept``: share of constraints kept, with its 95 % interval over prompts;
    ``whole``: share of prompts of which all are kept."""

    model: str
    task: str
    column: str
    constraints: int
    kept: float
    low: float
    high: float
    whole: float
    prompts: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """reliable@k: the share of prompts of which all ``k`` rewordings are kept whole (IFEval++, arXiv 2512.14754).

    ``single``: the share of the prompts as they were that are kept whole; ``mean``: that of all rewordings. ``groups``:
    prompts that the share is of, those of which a rewording was not answered being ``left_out``.
    """

    model: str
    task: str
    column: str
    k: int
    value: float
    low: float
    high: float
    single: float
    mean: float
    groups: int
    left_out: int


@dataclass(frozen=True, slots=True)
class TurnScore:
    """One turn of conversations. ``value``: share of them of which it is kept whole; ``kept``: of its constraints."""

    model: str
    task: str
    column: str
    turn: int
    value: float
    low: float
    high: float
    kept: float
    prompts: int


def curves(rows: Sequence[Row]) -> list[CurvePoint]:
    """Of all rows that are labelled with a number of constraints, by that number."""
    found = []
    for (model, task, column), own in _judged(rows, lambda row: CONSTRAINTS in row.labels):
        for level in sorted({int(row.labels[CONSTRAINTS]) for row in own}):
            at = [row for row in own if row.labels[CONSTRAINTS] == level]
            keys = {row.key for row in at}
            kept = _share(v.passed for row in at for v in row.verdicts[column])
            whole = _share(row.passes(column) for row in at)
            found.append(CurvePoint(model, task, column, level, kept, *wilson(kept, len(keys)), whole, len(keys)))
    return found


def reliability(rows: Sequence[Row]) -> list[Reliability]:
    """Of all rows that are rewordings. A rewording counts as kept if each of its samples is."""
    found = []
    for (model, task, column), own in _judged(rows, lambda row: COUSIN_OF in row.labels, with_errors=True):
        groups: dict[str, dict[int, list[bool]]] = {}
        errors: set[str] = set()
        for row in own:
            group = str(row.labels[COUSIN_OF])
            if row.error:
                errors.add(group)
            else:
                cousins = groups.setdefault(group, {})
                cousins.setdefault(int(row.labels[COUSIN]), []).append(row.passes(column))
        k = max((len(cousins) for cousins in groups.values()), default=0)
        whole = [cousins for name, cousins in groups.items() if name not in errors and len(cousins) == k]
        left_out = len(groups.keys() | errors) - len(whole)
        value = _share(all(map(all, cousins.values())) for cousins in whole)
        single = _share(all(cousins[0]) for cousins in whole if 0 in cousins)
        mean = _share(passed for cousins in whole for passes in cousins.values() for passed in passes)
        low, high = wilson(value, len(whole))
        found.append(Reliability(model, task, column, k, value, low, high, single, mean, len(whole), left_out))
    return found


def turn_scores(rows: Sequence[Row]) -> list[TurnScore]:
    """Of all rows whose verdicts are of turns."""
    found = []
    for (model, task, column), own in _judged(rows, lambda row: any(v.turn for v in _all(row))):
        for turn in sorted({v.turn for row in own for v in row.verdicts[column]}):
            of_turn = [(row.key, [v.passed for v in row.verdicts[column] if v.turn == turn]) for row in own]
            asked = [(key, passes) for key, passes in of_turn if passes]
            value = _share(all(passes) for _, passes in asked)
            kept = _share(passed for _, passes in asked for passed in passes)
            count = len({key for key, _ in asked})
            found.append(TurnScore(model, task, column, turn, value, *wilson(value, count), kept, count))
    return found


def _judged(
    rows: Sequence[Row], wanted: Callable[[Row], bool], *, with_errors: bool = False
) -> Iterable[tuple[tuple[str, str, str], list[Row]]]:
    """The wanted rows by model, task and column."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if (with_errors or not row.error) and wanted(row):
            groups.setdefault((row.task, row.model), []).append(row)
    for (task, model), own in groups.items():
        columns = next((row.verdicts for row in own if row.verdicts), {})
        for column in columns:
            yield (model, task, column), own


def _all(row: Row) -> Iterable[ConstraintVerdict]:
    return (verdict for judged in row.verdicts.values() for verdict in judged)


def _share(passes: Iterable[bool]) -> float:
    listed = list(passes)
    return sum(listed) / len(listed) if listed else 0.0
