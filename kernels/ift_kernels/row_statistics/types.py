"""What is known of a row of raw logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

TOP = 20
"""How many of the most likely tokens are reported, and averaged in ``mean_top``."""
MEASURES = 6
LARGEST, LOG_MASS, P1, P2, ENTROPY, MEAN_TOP = range(MEASURES)


@dataclass(slots=True)
class RowStatistics:
    """Of R rows, in natural logarithms.

    measures: ``[6, R]`` float32, one line a measure: the largest logit, ``log sum exp(logit - largest)``, the
    probabilities of the two most likely tokens, the entropy, and the mean log-probability of the ``TOP`` most likely.
    top_ids: ``[R, TOP]`` int32 (-1 beyond the vocabulary and for impossible tokens, whose logit is -inf; the mean
    leaves them out). top_log_probs: ``[R, TOP]`` float32. Most likely first; equal logits in the order of their ids.
    """

    measures: Tensor
    top_ids: Tensor
    top_log_probs: Tensor

    @property
    def largest(self) -> Tensor:
        """The largest logit, ``[R]``. The log-probability of a token is ``logit - largest - log_mass``."""
        return self.measures[LARGEST]

    @property
    def log_mass(self) -> Tensor:
        """``log sum exp(logit - largest)``, ``[R]``."""
        return self.measures[LOG_MASS]

    @property
    def p1(self) -> Tensor:
        """Probability of the most likely token, ``[R]``."""
        return self.measures[P1]

    @property
    def p2(self) -> Tensor:
        """Probability of the second, ``[R]``; 0 in a vocabulary of one."""
        return self.measures[P2]

    @property
    def entropy(self) -> Tensor:
        """``-sum p log p``, ``[R]``."""
        return self.measures[ENTROPY]

    @property
    def mean_top(self) -> Tensor:
        """Mean log-probability of the ``TOP`` most likely tokens, ``[R]``."""
        return self.measures[MEAN_TOP]
