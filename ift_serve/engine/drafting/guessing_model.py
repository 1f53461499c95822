"""A small model that guesses what a large one will draw, as the planner of drafts sees it."""

from __future__ import annotations

from typing import Protocol

from ift_serve.engine.sequences.draft_query import DraftQuery


class GuessingModel(Protocol):
    """Draws with the seeds and steps of those whom it guesses for, so that both often draw the same.

    It never raises: a guess that cannot be made is none.
    """

    def guess(self, queries: list[DraftQuery], count: int) -> list[list[int]]:
        """Up to ``count`` tokens behind each query's, none where it has not read the text yet or cannot."""
