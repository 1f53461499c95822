"""The running average of the probabilities of drawn tokens, by which adaptive-p moves its target."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ift_serve.engine.protocol.sampling import TargetProbability


@dataclass(slots=True)
class ProbabilityAverage:
    """Of one sequence: ``weighted_sum = sum p_i decay^i`` over ``total_weight = sum decay^i``, newest first.

    It begins as after many tokens of just the target. A drawn token counts once it stands in the sequence: one that was
    forced, or drawn and then replaced, does not.
    """

    target: float
    decay: float
    weighted_sum: float
    total_weight: float
    drawn: tuple[int, int, float] | None = None

    @classmethod
    def of(cls, wanted: TargetProbability) -> ProbabilityAverage:
        """At the begin of an answer."""
        rest = 1.0 - wanted.decay
        return cls(wanted.target, wanted.decay, wanted.target / rest, 1.0 / rest)

    def wanted(self, history: list[int]) -> float:
        """The probability that the next token of ``history`` should have: ``2 target - average``, in 0 .. 1."""
        if self.drawn is not None:
            place, token, probability = self.drawn
            if place < len(history) and history[place] == token:
                self.weighted_sum = probability + self.decay * self.weighted_sum
                self.total_weight = 1.0 + self.decay * self.total_weight
            self.drawn = None
        return min(max(2.0 * self.target - self.weighted_sum / self.total_weight, 0.0), 1.0)

    def note(self, place: int, token: int, probability: float) -> None:
        """``token`` was drawn for this place of the sequence, and had this probability before the target moved it."""
        self.drawn = (place, token, probability)

    def copy(self) -> ProbabilityAverage:
        """For a sequence that forks from this one."""
        return replace(self)
