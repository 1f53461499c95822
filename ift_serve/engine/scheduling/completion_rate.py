"""Rate at which requests end, from which retry delays are computed."""

from __future__ import annotations

_SHARE, _LONGEST = 0.1, 5.0
_SOONEST, _LATEST = 0.1, 30.0


class CompletionRate:
    """A running mean of the seconds between ends of requests."""

    def __init__(self, now: float) -> None:
        self._interval = 0.1
        self._last = now

    def note(self, now: float) -> None:
        """A request has ended."""
        self._interval += _SHARE * (min(now - self._last, _LONGEST) - self._interval)
        self._last = now

    def seconds_for(self, requests: float) -> float:
        """How long so many requests will take to end, within what a caller can use."""
        return min(_LATEST, max(_SOONEST, self._interval * requests))
