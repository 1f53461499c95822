"""Errors that end an evaluation, as opposed to one of its requests."""

from __future__ import annotations

from collections.abc import Sequence


class EvaluationError(Exception):
    """An evaluation that cannot go on, or whose outcome must not be taken for a score."""


class UnsupportedServerError(EvaluationError):
    """The server cannot do what is to be evaluated."""


class IncompleteError(EvaluationError):
    """Requests that were not answered, where there is no way to leave them out of a score."""

    def __init__(self, failed: int, asked: int, reasons: Sequence[str]) -> None:
        shown = "; ".join(dict.fromkeys(reasons[:3]))
        super().__init__(
            f"{failed} of {asked} requests were not answered ({shown}). What was answered is kept: the same command "
            f"again asks only for the rest. errors=count scores them as wrong instead."
        )
        self.failed = failed
