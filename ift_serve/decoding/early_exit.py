"""Early exit of a thought: its answer's entropy has settled (EAT), or a trial answer is confident (DEER)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ift_serve.engine.protocol.generate import TokenStatistics


class EntropyVariance:
    """Exponential mean and variance of the entropies after the closing marker (EAT, arXiv 2509.26522, section 3).

    ``mean += a (x - mean)``, the first entropy being the first mean; then, with the new mean,
    ``variance = (1 - a) variance + a (x - mean) ** 2``, from 0. ``smoothing`` is a, above 0 and at most 1.
    """

    def __init__(self, smoothing: float) -> None:
        if not 0.0 < smoothing <= 1.0:
            raise ValueError(f"smoothing is {smoothing}; must be above 0 and at most 1")
        self._smoothing = smoothing
        self.probes = 0
        self.mean = 0.0
        self.variance = 0.0

    def observe(self, entropy: float) -> None:
        """The entropy, in nats, of the first token of the answer if the thought ended here."""
        self.probes += 1
        if self.probes == 1:
            self.mean = entropy
            return
        self.mean += self._smoothing * (entropy - self.mean)
        deviation = entropy - self.mean
        self.variance = (1.0 - self._smoothing) * self.variance + self._smoothing * deviation * deviation

    @property
    def warm_up(self) -> int:
        """Probes before the variance, which begins at 0, says anything: four time constants."""
        return math.ceil(4.0 / self._smoothing)

    def has_settled(self, threshold: float, least: int = 0) -> bool:
        """Whether the thought may end: the variance is below ``threshold`` after more than ``least`` probes.

        ``least`` 0: ``warm_up``.
        """
        return self.probes > (least or self.warm_up) and self.variance < threshold


def trial_confidence(trial: Sequence[TokenStatistics], *, geometric: bool = True) -> float:
    """How sure a model is of an answer that it tries (DEER, arXiv 2504.15895, equation 4), 0 to 1.

    ``(prod_i max p_i) ** (1/n)`` over the answer's tokens, or their arithmetic mean, which the authors' first code
    takes. 0 where there are none: what was not answered is not sure.
    """
    greatest = [one.p1 for one in trial if not one.forced]
    if not greatest or min(greatest) <= 0.0:
        return 0.0
    if not geometric:
        return math.fsum(greatest) / len(greatest)
    return math.exp(math.fsum(map(math.log, greatest)) / len(greatest))
