"""Rules that choose a temperature by the statistics of the raw distribution alone."""

from __future__ import annotations

from torch import Tensor


def entropy_temperature(initial: Tensor, entropy: Tensor, base: Tensor, theta: Tensor) -> Tensor:
    """``T = T_0 N^(theta / H)`` with ``0 < N < 1``, all ``[R]``: EDT (arXiv 2403.14541, equation 4).

    A model that is sure, H near 0, is drawn from greedily; one that is not, at almost T_0. ``base`` is N and entropy is
    in nats; theta above 0. In float64, so that a row's place in the batch decides no bit of the rounded result.
    """
    exponent = theta.double() / entropy.double().clamp_min(0.0)
    return (initial.double() * base.double() ** exponent).float()
