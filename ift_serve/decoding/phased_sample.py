"""Plain generation whose thoughts are drawn at a temperature of their own."""

from __future__ import annotations

from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.requirements import invalid
from ift_serve.decoding.sample import Sample
from ift_serve.decoding.sequence_rules import SequenceRules
from ift_serve.decoding.watched_sequence import WatchedSequence
from ift_serve.engine.core.strategy import Branch, Control, Strategy
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.engine.sequences.step import SampledToken

_FIELD = "sampling.reasoning_temperature"


class PhasedSample(Strategy):
    """Each candidate goes on by itself; the temperature is that of the phase it is in. Raises RefusedError."""

    def __init__(self, request: GenerateRequest, context: StrategyContext) -> None:
        self._rules = SequenceRules.of(request, context, None, _FIELD)
        if self._rules.start is None:
            raise invalid(_FIELD, "the model has no markers of thoughts that are known")
        self.width = request.sampling.candidates
        self.first_temperature = self._rules.first_temperature
        self.first_forbidden = self._rules.first_forbidden
        self._candidates: dict[int, WatchedSequence] = {}

    def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        """Follow a candidate through its phases."""
        watched = self._candidates.get(branch.ordinal)
        if watched is None:
            watched = self._candidates[branch.ordinal] = WatchedSequence(self._rules, branch)
        over = watched.observe(control, token, reason)
        if over is not None:
            control.stop(branch, over)


def sample(request: GenerateRequest, context: StrategyContext) -> Strategy:
    """Plain generation: left to itself unless its thoughts have a temperature of their own."""
    return Sample(request) if request.sampling.reasoning_temperature is None else PhasedSample(request, context)
