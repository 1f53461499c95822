"""Tokens and log-probabilities by channel."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ift_serve.text.phases.settings import Channel
from ift_serve.text.phases.state import Routed


@dataclass(slots=True)
class LogProbSum:
    """Over the drawn tokens of a channel. ``total``: natural logarithm."""

    tokens: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float | None:
        """The mean log-probability; None where nothing was drawn."""
        return self.total / self.tokens if self.tokens else None


class ChannelTally:
    """Log-probabilities of one sequence, each under the channel of its token. Forced tokens have none."""

    def __init__(self) -> None:
        self.sums = {channel.value: LogProbSum() for channel in Channel}
        self._waiting: deque[tuple[int, float | None]] = deque()
        """Positions and log-probabilities of the tokens whose channel is not known."""
        self._observed = 0

    def __getitem__(self, channel: Channel) -> LogProbSum:
        """What is known of a channel."""
        return self.sums[channel.value]

    def observe(self, log_prob: float | None, routed: Iterable[Routed]) -> None:
        """The log-probability of the next token, None if it was forced, and what its decision routed."""
        self._waiting.append((self._observed, log_prob))
        self._observed += 1
        self.take(routed)

    def take(self, routed: Iterable[Routed]) -> None:
        """Tokens whose channel has become known, such as those left at the end."""
        for part in routed:
            if not part.counts:
                continue
            while self._waiting and self._waiting[0][0] <= part.position:
                position, log_prob = self._waiting.popleft()
                if position == part.position and log_prob is not None:
                    one = self.sums[part.channel.value]
                    one.tokens += 1
                    one.total += log_prob
