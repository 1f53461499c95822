"""How often guesses come true, by what they rest on: what a drafted token is worth."""

from __future__ import annotations

MODEL = 6
"""The kind of guesses that a model made."""
_KINDS = 7
_FADING = 0.98
"""What a trial counts after the next one of its kind; some fifty count."""
_WEIGHT = 6.0
"""Trials that the rate of all sequences counts for in that of one."""
_FIRST = (0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 0.6)
"""Rates before there were trials, each as if of so many as count."""


def kind_of(alike: int) -> int:
    """The kind of a guess that rests on so many tokens, at least 2, that are alike."""
    return 0 if alike < 3 else 1 if alike < 4 else 2 if alike < 6 else 3 if alike < 9 else 4 if alike < 16 else 5


class AcceptanceRates:
    """Of guesses of each kind: the share of tokens, of those before which all came true, that came true themselves.

    Those of a sequence lean on ``common``, those of all sequences.
    """

    def __init__(self, common: AcceptanceRates | None = None) -> None:
        self._common = common
        self._true = [0.0] * _KINDS
        self._trials = [0.0] * _KINDS

    def note(self, kind: int, came_true: int, failed: bool) -> None:
        """So many tokens of a guess came true one after the other, and the next one did not (``failed``) or was not
        tried."""
        trials = came_true + failed
        kept = _FADING**trials
        self._true[kind] = kept * self._true[kind] + came_true
        self._trials[kind] = kept * self._trials[kind] + trials
        if self._common is not None:
            self._common.note(kind, came_true, failed)

    def rate(self, kind: int) -> float:
        """Between 0 and 1."""
        expected = _FIRST[kind] if self._common is None else self._common.rate(kind)
        return (self._true[kind] + _WEIGHT * expected) / (self._trials[kind] + _WEIGHT)
