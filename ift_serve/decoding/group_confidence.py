"""The confidence of windows of tokens, by which samples are weighed or ended early (DeepConf, arXiv 2508.15260)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from ift_serve.engine.protocol.generate import TokenStatistics


def token_confidence(statistics: TokenStatistics) -> float:
    """``-1/k sum_j log P_i(j)`` over the 20 most likely tokens, in nats: higher where fewer tokens are likely (eq. 2).

    Up to a constant this is self-certainty (arXiv 2502.18581), the divergence of the uniform distribution from that of
    the model, over these tokens instead of the whole vocabulary, of which the statistics say nothing.
    """
    return -statistics.mean_top20_log_prob


class GroupConfidence:
    """Means of the confidence over each ``window`` tokens in a row, as tokens come.

    While there are fewer tokens than that there is no group; ``lowest`` of a sample that ended so is the mean of all.
    """

    def __init__(self, window: int) -> None:
        if window < 1:
            raise ValueError(f"window is {window}; must be 1 or more")
        self._window = window
        self._last: deque[float] = deque()
        self._sum = self._total = 0.0
        self._count = 0
        self._groups: list[float] = []

    def observe(self, confidence: float) -> None:
        """The confidence of the next token."""
        self._last.append(confidence)
        self._sum += confidence
        self._total += confidence
        self._count += 1
        if len(self._last) > self._window:
            self._sum -= self._last.popleft()
        if self._count % self._window == 0:
            # A running sum drifts, so it begins anew once a window.
            self._sum = math.fsum(self._last)
        if len(self._last) == self._window:
            self._groups.append(self._sum / self._window)

    @property
    def mean(self) -> float:
        """The mean over all tokens; 0 where none came."""
        return self._total / self._count if self._count else 0.0

    @property
    def current(self) -> float | None:
        """The mean of the last window; None before the first one is full."""
        return self._groups[-1] if self._groups else None

    @property
    def lowest(self) -> float | None:
        """The least mean of any window (equation 5); None where no token came."""
        if self._groups:
            return min(self._groups)
        return self.tail

    @property
    def tail(self) -> float | None:
        """The mean of the last window, or of all tokens where they are fewer (equation 6)."""
        if self._groups:
            return self._groups[-1]
        return self.mean if self._count else None


def stop_threshold(lowest: Sequence[float], keep: float) -> float:
    """The confidence below which a sample ends: of the warm-up's lowest groups, the percentile ``100 (1 - keep)``.

    Interpolated linearly between the two nearest. ``keep``: .9 is the paper's permissive variant, .1 the strict one.
    """
    if not lowest:
        raise ValueError("no samples to take a percentile of")
    if not 0.0 <= keep <= 1.0:
        raise ValueError(f"keep is {keep}; must be 0 to 1")
    ordered = sorted(lowest)
    place = (1.0 - keep) * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
