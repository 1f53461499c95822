"""When a thought has said enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.decoding.early_exit import EntropyVariance, trial_confidence
from ift_serve.engine.protocol.generate import TokenStatistics


def observed(entropies: list[float], smoothing: float) -> EntropyVariance:
    variance = EntropyVariance(smoothing)
    for entropy in entropies:
        variance.observe(entropy)
    return variance


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.sampled_from([0.05, 0.2, 0.5, 1.0]))
def test_mean_and_variance_are_exponential_sums(entropies: list[float], smoothing: float) -> None:
    """In closed form: weights a (1 - a)^(n - i), the first value standing for all before it."""
    series = np.array(entropies)
    means = []
    for count in range(1, len(series) + 1):
        weights = smoothing * (1 - smoothing) ** np.arange(count - 1, -1, -1.0)
        weights[0] = (1 - smoothing) ** (count - 1)
        means.append((weights * series[:count]).sum())
    ages = np.arange(len(series) - 1, -1, -1.0)
    expected = (smoothing * (1 - smoothing) ** ages * (series - np.array(means)) ** 2).sum()
    variance = observed(entropies, smoothing)
    assert variance.mean == pytest.approx(means[-1], abs=1e-9)
    assert variance.variance == pytest.approx(expected, abs=1e-9)


def test_three_probes_by_hand() -> None:
    """a = 1/2: means 4, 3, 2; variances 0, (2 - 3)^2 / 2 = .5, .5 / 2 + (1 - 2)^2 / 2 = .75."""
    variance = observed([4.0, 2.0, 1.0], 0.5)
    assert (variance.mean, variance.variance) == (2.0, 0.75)


def test_a_thought_is_not_over_before_the_variance_says_anything() -> None:
    variance = EntropyVariance(0.2)
    assert variance.warm_up == 20
    ended = []
    for probe in range(1, 30):
        variance.observe(1.0)
        ended.append((probe, variance.has_settled(1e-3)))
    assert next(probe for probe, over in ended if over) == 21
    assert observed([1.0] * 4, 0.2).has_settled(1e-3, least=3)


def test_entropies_that_jump_do_not_settle() -> None:
    jumping = observed([0.0, 3.0] * 20, 0.2)
    assert not jumping.has_settled(0.1)
    calm = observed([0.0, 3.0] * 20 + [0.5] * 40, 0.2)
    assert calm.has_settled(0.1)


@pytest.mark.parametrize("smoothing", [0.0, -0.1, 1.1])
def test_smoothing_must_be_a_share(smoothing: float) -> None:
    with pytest.raises(ValueError, match="smoothing"):
        EntropyVariance(smoothing)


def trial(*greatest: float) -> list[TokenStatistics]:
    return [TokenStatistics(-1.0, p1, 0.0, 0.5, -2.0, 0.0) for p1 in greatest]


def test_a_trial_is_as_sure_as_its_tokens() -> None:
    assert trial_confidence(trial(0.9, 0.4)) == pytest.approx(0.6)
    assert trial_confidence(trial(0.9, 0.4), geometric=False) == pytest.approx(0.65)
    assert trial_confidence(trial(0.97)) == pytest.approx(0.97)


def test_no_trial_is_not_sure() -> None:
    forced = TokenStatistics(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, forced=True)
    assert trial_confidence([]) == trial_confidence([forced]) == 0.0
    assert trial_confidence([*trial(0.9), forced]) == pytest.approx(0.9)
