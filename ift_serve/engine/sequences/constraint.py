"""Constraint of a sequence: the tokens that a structured answer allows next."""

from __future__ import annotations

from typing import Protocol

from ift_serve.engine.sequences.step import TokenMask


class Constraint(Protocol):
    """Follows one sequence. Created before the first generated token.

    Nothing here waits for a mask to be made: that goes on beside the model's step, and the sampler waits for it.
    """

    @property
    def is_ready(self) -> bool:
        """Whether the form has been read. Nothing else may be asked before."""

    def copy(self) -> Constraint:
        """The same, for a sequence that goes on from the same tokens."""

    def take(self, token_id: int) -> None:
        """A token was appended, drawn or forced."""

    def take_back(self, count: int) -> None:
        """The last so many tokens are gone."""

    def mask(self) -> TokenMask | None:
        """What may be drawn next; None: anything."""

    def error(self) -> str:
        """Why nothing may be drawn, for the caller; empty where that is not the form's fault."""
