"""The running average of the probabilities of drawn tokens, by which adaptive-p moves its target."""

from __future__ import annotations

from ift_serve.engine.protocol.sampling import TargetProbability


class ProbabilityAverage:
    """Of one sequence: ``sum p_i decay^i`` over ``sum decay^i``, newest first.

    It begins as after many tokens of just the target. A drawn token counts once it stands in the sequence: one that was
    forced, or drawn and then replaced, does not.
    """

    __slots__ = ("_counted", "_drawn", "_total_weight", "_weighted_sum", "_wish")

    def __init__(self, wish: TargetProbability) -> None:
        rest = 1.0 - wish.decay
        self._wish = wish
        self._weighted_sum, self._total_weight = wish.target / rest, 1.0 / rest
        self._counted: list[tuple[int, float]] = []
        self._drawn: tuple[int, int, float] | None = None

    @property
    def value(self) -> float:
        """The weighted average of the probabilities noted so far."""
        return self._weighted_sum / self._total_weight

    def wanted(self, history: list[int]) -> float:
        """The probability that the next token of ``history`` should have: ``2 target - average``, in 0 .. 1."""
        self._settle(history)
        return min(max(2.0 * self._wish.target - self.value, 0.0), 1.0)

    def note(self, place: int, token: int, probability: float) -> None:
        """``token`` was drawn for this place of the sequence, and had this probability before the target moved it."""
        self._drawn = (place, token, probability)

    def fork(self, history: list[int]) -> ProbabilityAverage:
        """For a sequence that begins as this one did and has the tokens ``history`` so far."""
        child = ProbabilityAverage(self._wish)
        for place, probability in self._counted:
            if place < len(history):
                child._count(place, probability)
        child._drawn = self._drawn
        child._settle(history)
        return child

    def _settle(self, history: list[int]) -> None:
        if self._drawn is not None:
            place, token, probability = self._drawn
            self._drawn = None
            if place < len(history) and history[place] == token:
                self._count(place, probability)

    def _count(self, place: int, probability: float) -> None:
        self._counted.append((place, probability))
        self._weighted_sum = probability + self._wish.decay * self._weighted_sum
        self._total_weight = 1.0 + self._wish.decay * self._total_weight
