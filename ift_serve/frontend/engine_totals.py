"""Totals over all engines of one server process: counters that a restart does not reset."""

from __future__ import annotations

from collections.abc import Callable

from ift_serve.engine.protocol.stats import EngineStats


class EngineTotals:
    """Sums of the counters in :class:`EngineStats` over the lives of engines, by their names there."""

    def __init__(self) -> None:
        self.steps = 0
        self.preemptions = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self.drafted_tokens = 0
        self.accepted_tokens = 0
        self.step_seconds = 0.0
        self.adapter_evictions = 0
        self.adapter_returns = 0
        self.on_step: Callable[[float], None] = lambda seconds: None
        """Called with the mean time of the steps that a message tells of, once for each of them."""
        self._last = EngineStats()

    def take(self, stats: EngineStats) -> None:
        """Add what was done since the last time."""
        last, self._last = self._last, stats
        steps, seconds = stats.steps - last.steps, stats.step_seconds - last.step_seconds
        self.steps += steps
        self.step_seconds += seconds
        self.preemptions += stats.preemptions - last.preemptions
        self.prompt_tokens += stats.prompt_tokens - last.prompt_tokens
        self.cached_tokens += stats.cached_tokens - last.cached_tokens
        self.generated_tokens += stats.generated_tokens - last.generated_tokens
        self.drafted_tokens += stats.drafted_tokens - last.drafted_tokens
        self.accepted_tokens += stats.accepted_tokens - last.accepted_tokens
        self.adapter_evictions += stats.adapter_evictions - last.adapter_evictions
        self.adapter_returns += stats.adapter_returns - last.adapter_returns
        for _ in range(steps):
            self.on_step(seconds / steps)

    def begin(self) -> None:
        """A new engine counts from nothing."""
        self._last = EngineStats()
