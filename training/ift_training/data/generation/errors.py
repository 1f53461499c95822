"""What ends a run."""

from __future__ import annotations


class GenerationError(ValueError):
    """A run that cannot go on; the message says what to do. What was made so far is kept."""
