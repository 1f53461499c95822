"""The temperature of confidences: found again where it is known, and its errors worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ift_training.temperature.calibration import Calibration, Reliability, Rows, fit_temperature, reliability


def _rows(logits: Tensor, targets: Tensor, size: int = 700) -> Rows:
    def rows() -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(torch.split(logits, size), torch.split(targets, size), strict=True)

    return rows


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_of_overconfident_logits_is_found(true: float) -> None:
    generator = torch.Generator().manual_seed(1)
    honest = torch.randn(6000, 12, generator=generator) * 2
    targets = torch.multinomial(torch.softmax(honest, 1), 1, generator=generator)[:, 0]
    rows = _rows(honest * true, targets)
    found = fit_temperature(rows)
    assert found == pytest.approx(true, rel=0.05)
    likelihoods = [reliability(rows, found * factor, 15).likelihood for factor in (0.99, 1.0, 1.01)]
    assert likelihoods[1] == min(likelihoods)
    if true == 2.5:
        # 6000 tokens in 15 bins are off by about 0.02 by chance.
        assert reliability(rows, found, 15).error < 0.04 and reliability(rows, 1.0, 15).error > 0.15


def test_a_temperature_that_no_data_bounds_stays_finite() -> None:
    logits = torch.tensor([[5.0, 0.0], [0.0, 5.0]])
    assert 0 < fit_temperature(_rows(logits, torch.tensor([0, 1]))) < 0.1


def test_the_error_is_that_of_the_definition() -> None:
    """Two tokens at 0.9, one of them right; two at 0.6, both right: (2 |0.5 - 0.9| + 2 |1 - 0.6|) / 4."""
    confidence = torch.tensor([0.9, 0.9, 0.6, 0.6], dtype=torch.float64)
    logits = torch.stack((confidence, 1 - confidence), 1).log()
    found = reliability(_rows(logits, torch.tensor([0, 1, 0, 0])), 1.0, 10)
    assert found.error == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)
    assert found.counts == [0, 0, 0, 0, 0, 2, 0, 0, 2, 0]
    assert found.accuracy[8] == 0.5 and found.confidence[5] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("likelihood", "error", "is_kept"),
    [(0.39, 0.04, True), (0.39, 0.05, False), (0.39, 0.06, False), (0.41, 0.04, False), (0.40, 0.05, False)],
)
def test_a_temperature_is_kept_only_if_it_makes_likelihood_and_error_better(
    likelihood: float, error: float, is_kept: bool
) -> None:
    before, after = (Reliability([1], [0.5], [0.5], e, nats) for e, nats in ((0.05, 0.40), (error, likelihood)))
    found = Calibration(1.3, 1, before, after)
    assert found.is_kept == is_kept and found.temperature == (1.3 if is_kept else None)


def test_overconfident_logits_are_mended_and_calibrated_ones_left_alone() -> None:
    """What is fitted on a few honest tokens is their noise: over many draws it is mostly refused, and never costly."""
    kept = {1.0: 0, 2.5: 0}
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        honest = torch.randn(3000, 12, generator=generator, dtype=torch.float64) * 2
        targets = torch.multinomial(torch.softmax(honest, 1), 1, generator=generator)[:, 0]
        for true in kept:
            halves = [_rows(honest[half::2] * true, targets[half::2]) for half in (0, 1)]
            fitted = fit_temperature(halves[0])
            found = Calibration(fitted, 1500, *(reliability(halves[1], t, 15) for t in (1.0, fitted)))
            kept[true] += found.is_kept
    assert kept[2.5] == 20 and kept[1.0] <= 10
