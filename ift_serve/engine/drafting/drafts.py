"""What the scheduler asks for tokens to draft."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from typing import Protocol

from ift_serve.engine.sequences.sequence import Sequence


class Drafts(Protocol):
    """Guesses tokens for a step that computes nothing but the next token of some sequences.

    What it guesses changes how many steps an answer takes, and nothing else.
    """

    def plan(self, sequences: Listing[Sequence], room: int, longest: Listing[int]) -> list[list[int]]:
        """Tokens to draft behind each of the sequences, none for most.

        room: rows that the step has left. longest: how many tokens may be drafted behind each sequence.
        """

    def note(self, seconds: float) -> None:
        """The step that has just been computed took so long, whether it was planned here or not."""
