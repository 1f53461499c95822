"""The outcome of a check."""

from __future__ import annotations

from dataclasses import dataclass

Span = tuple[int, int]
"""First character and the one after the last, counted in the response as it was given."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a response does what was asked, and why.

    reason: why it does not; empty where it does. span: the offending characters of a response that fails, the
    satisfying ones of a response that passes; None where no place can be named. A verdict is true when it passed.
    """

    passed: bool
    reason: str = ""
    span: Span | None = None

    def __bool__(self) -> bool:
        return self.passed


PASSED = Verdict(True)


def passed(span: Span) -> Verdict:
    """A verdict that points at what satisfies the check."""
    return Verdict(True, "", span)


def failed(reason: str, span: Span | None = None) -> Verdict:
    """A verdict that says what is wrong, and where."""
    return Verdict(False, reason, span)
