"""How far from uniform a sample's distributions were on the whole, by which samples are ranked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ift_serve.engine.protocol.generate import TokenStatistics


def self_certainty(mean_log_probs: Sequence[float], classes: int) -> float:
    """The mean divergence of the uniform distribution from those of a sample, in nats (arXiv 2502.18581, equation 6).

    ``-1/(n V) sum_i sum_j log(V p_ij)``; ``mean_log_probs[i]`` is ``1/V sum_j log p_ij`` and ``classes`` is V.
    """
    if not mean_log_probs:
        raise ValueError("no tokens")
    return -sum(mean_log_probs) / len(mean_log_probs) - math.log(classes)


def sample_certainty(statistics: Sequence[TokenStatistics]) -> float:
    """Self-certainty of a sample over the 20 most likely tokens of each distribution, which is DeepConf's confidence.

    ``-1/(20 n) sum_i sum_j log P_i(j)`` (arXiv 2508.15260, equation 2), in nats. The statistics of a token have no sum
    over the whole vocabulary; the constant ``log V`` that is missing too changes no order. 0 where nothing was drawn.
    """
    drawn = [-one.mean_top20_log_prob for one in statistics if not one.forced]
    return sum(drawn) / len(drawn) if drawn else 0.0
