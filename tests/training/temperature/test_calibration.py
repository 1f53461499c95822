"""The temperature of confidences: found again where it is known, and its errors worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ift_training.temperature.calibration import Rows, fit_temperature, reliability


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
