"""Decides when a small model guesses, and how far: as its guesses come true, and by what they take."""

from __future__ import annotations

import time
from collections.abc import Callable

from ift_serve.engine.drafting.guessing_model import GuessingModel
from ift_serve.engine.drafting.step_costs import StepCosts
from ift_serve.engine.sequences.draft_query import DraftQuery
from ift_serve.engine.sequences.sequence import Sequence

LONGEST_GUESS = 8
_TRIED_AGAIN = 64
"""Steps without guesses after which some are made for what they teach."""
_TRIAL = 2


class ModelGuesses:
    """Asks ``model``; ``costs`` are of the served model's steps."""

    def __init__(self, model: GuessingModel, costs: StepCosts, clock: Callable[[], float] = time.perf_counter) -> None:
        self._model = model
        self._costs = costs
        self._clock = clock
        self._own = StepCosts()
        self._waited = _TRIED_AGAIN

    def length(self, rates: list[float], rows: int, pace: float) -> int:
        """How many tokens to guess behind each of the sequences with these rates; 0: none.

        rows: those of the step without guesses. pace: expected tokens a second without them.
        """
        best, count = pace, 0
        for length in range(1, LONGEST_GUESS + 1):
            tokens = rows + sum(sum(rate**n for n in range(1, length + 1)) for rate in rates)
            seconds = self._costs.seconds(rows + length * len(rates), rows) + length * self._own.seconds(len(rates))
            if tokens / seconds > best:
                best, count = tokens / seconds, length
        self._waited += 1
        if not count and self._waited >= _TRIED_AGAIN:
            count = _TRIAL
        return count

    def guess(self, sequences: list[Sequence], count: int) -> list[list[int]]:
        """So many tokens behind each of the sequences."""
        queries = [DraftQuery(s.number, s.tokens, s.row) for s in sequences if s.row is not None]
        begun = self._clock()
        guessed = self._model.guess(queries, count)
        if any(guessed):
            self._waited = 0
            self._own.note(len(queries), (self._clock() - begun) / count)
        return guessed
