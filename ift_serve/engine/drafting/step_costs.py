"""What a step takes by how many rows it computes, from the steps there were."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from statistics import median
from typing import NamedTuple

_TILE = 4
"""Rows that kernels take together, so that two cost what four do."""
_KEPT = 5
_COMPARED = 15
"""Steps whose times are compared with those that were measured before."""
_FEWEST = 3
"""Steps with drafts that say what they take: one may have been recorded, or waited for others on the machine."""
_STALE = 400
"""Steps after which what was measured before counts no more: it is tried again."""
_GUESSED_SHARE = 0.03
"""Of a step of one row, what each row more is taken to cost until it is measured."""


class _Class(NamedTuple):
    """Steps that take longer than measured ones by one factor: of about so many sequences, with drafts or without."""

    doublings: int
    drafted: bool


class StepCosts:
    """The median seconds of the latest steps, by tiles of rows.

    Where steps were measured before there was anything to serve, their proportions hold, and the latest steps say
    how much longer all of them take now: for longer texts, adapters, and others on the machine. So not every number
    of rows has to be tried for its cost to be known. What was measured was one sequence: steps of several, with
    drafts and without, take longer than it by different factors, so each has its own once there were such steps.
    """

    def __init__(self, measured: Sequence[float] = ()) -> None:
        """measured: seconds of steps of 1, 2 ... rows; at least two of them, or none."""
        self._measured = list(accumulate(measured, max))
        self._ratios: dict[_Class, deque[float]] = {}
        self._noted_class: dict[_Class, int] = {}
        self._known: dict[int, deque[float]] = {}
        self._noted: dict[int, int] = {}
        self._steps = 0

    def note(self, rows: int, seconds: float, sequences: int = 1) -> None:
        """A step that decoded so many rows, of so many sequences, took so long."""
        self._steps += 1
        if seconds <= 0.0:
            return
        if self._measured:
            self._note_ratio(_class_of(rows, sequences), seconds / self._before(rows))
            return
        tile = _tile(rows)
        self._known.setdefault(tile, deque(maxlen=_KEPT)).append(seconds)
        self._noted[tile] = self._steps
        for old in [tile for tile, step in self._noted.items() if self._steps - step > _STALE]:
            del self._known[old], self._noted[old]

    def seconds(self, rows: int, sequences: int = 1) -> float:
        """What a step of so many rows, of so many sequences, will take; in units of one of one row where nothing is
        known.

        More rows never take less: what was measured of fewer rows counts too.
        """
        if self._measured:
            return self._before(rows) * self._ratio(_class_of(rows, sequences))
        tile = _tile(rows)
        below = [(known, median(times)) for known, times in self._known.items() if known <= tile]
        if not below:
            above = min((known for known in self._known), default=None)
            return 1.0 + _GUESSED_SHARE * (rows - 1) if above is None else median(self._known[above])
        nearest = max(below)[0]
        most = max(seconds for _, seconds in below)
        first = min(below)[1]
        return most + first * _GUESSED_SHARE * _TILE * (tile - nearest)

    def _note_ratio(self, found: _Class, ratio: float) -> None:
        self._ratios.setdefault(found, deque(maxlen=_COMPARED)).append(ratio)
        self._noted_class[found] = self._steps
        for old in [each for each, step in self._noted_class.items() if self._steps - step > _STALE]:
            del self._ratios[old], self._noted_class[old]

    def _ratio(self, wanted: _Class) -> float:
        """Of such steps; where there were few, of those without drafts, or 1: what seems cheap is tried, and known."""
        ratios = self._ratios.get(wanted, ())
        if wanted.drafted and len(ratios) < _FEWEST:
            ratios = self._ratios.get(wanted._replace(drafted=False), ())
        return median(ratios) if ratios else 1.0

    def _before(self, rows: int) -> float:
        """Measured seconds; past the most rows that were, each costs what it did on average between half of them and
        all."""
        measured = self._measured
        most = len(measured)
        if rows <= most:
            return measured[rows - 1]
        half = most // 2
        return measured[-1] + (measured[-1] - measured[half - 1]) / (most - half) * (rows - most)


def _class_of(rows: int, sequences: int) -> _Class:
    return _Class((sequences - 1).bit_length(), rows > sequences)


def _tile(rows: int) -> int:
    return 0 if rows == 1 else 1 + (rows - 1) // _TILE
