"""Windows of confidence and the threshold that they are held to, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.decoding.group_confidence import GroupConfidence, stop_threshold, token_confidence
from ift_serve.engine.protocol.generate import TokenStatistics

values = st.lists(st.floats(0, 30), min_size=1, max_size=40)


def observed(confidences: list[float], window: int) -> GroupConfidence:
    group = GroupConfidence(window)
    for confidence in confidences:
        group.observe(confidence)
    return group


@given(values, st.integers(1, 12))
def test_windows_are_means_of_consecutive_tokens(confidences: list[float], window: int) -> None:
    group = observed(confidences, window)
    assert group.mean == pytest.approx(np.mean(confidences))
    if len(confidences) < window:
        assert group.current is None
        assert group.lowest == group.tail == pytest.approx(np.mean(confidences))
        return
    means = np.lib.stride_tricks.sliding_window_view(np.array(confidences), window).mean(-1)
    assert group.current == group.tail == pytest.approx(means[-1])
    assert group.lowest == pytest.approx(means.min())


@given(values, st.floats(0, 1))
def test_the_threshold_is_a_percentile_of_the_warm_up(lowest: list[float], keep: float) -> None:
    assert stop_threshold(lowest, keep) == pytest.approx(np.percentile(lowest, 100 * (1 - keep)), abs=1e-9)


def test_keeping_more_stops_fewer() -> None:
    lowest = [5.0, 7.0, 9.0, 11.0]
    assert stop_threshold(lowest, 1.0) == 5.0 and stop_threshold(lowest, 0.0) == 11.0
    assert stop_threshold(lowest, 0.9) == pytest.approx(5.6)


def test_confidence_is_minus_the_mean_of_the_most_likely() -> None:
    assert token_confidence(TokenStatistics(-1.0, 0.5, 0.2, 1.0, -7.5, 1.0)) == 7.5


def test_nothing_and_what_cannot_be() -> None:
    empty = GroupConfidence(4)
    assert empty.mean == 0.0 and empty.current is None and empty.lowest is None
    with pytest.raises(ValueError, match="window"):
        GroupConfidence(0)
    with pytest.raises(ValueError, match="no samples"):
        stop_threshold([], 0.9)
    with pytest.raises(ValueError, match="keep"):
        stop_threshold([1.0], 1.5)
