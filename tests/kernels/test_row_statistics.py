"""Statistics of rows against float64, and what the draw may rely on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ift_kernels.row_statistics import RowStatistics, row_statistics
from ift_kernels.sample_rows import sample_rows
from ift_kernels.sample_rows.api import greedy_parameters

BACKENDS = pytest.mark.parametrize("backend", ["cpu", "triton", "reference"])


def _by_hand(row: Tensor) -> list[float]:
    """Largest, log mass, p1, p2, entropy and mean top-20 log-probability by Python's own floats."""
    logits = sorted((float(x) for x in row), reverse=True)
    mass = math.fsum(math.exp(x - logits[0]) for x in logits)
    logs = [x - logits[0] - math.log(mass) for x in logits]
    entropy = -math.fsum(math.exp(x) * x for x in logs)
    top = logs[:20]
    return [logits[0], math.log(mass), math.exp(logs[0]), math.exp(logs[1]), entropy, math.fsum(top) / len(top)]


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [2, 17, 2049])
def test_measures_are_those_of_plain_arithmetic(backend: str, dtype: torch.dtype, size: int) -> None:
    logits = (torch.randn(3, size, generator=torch.Generator().manual_seed(size)) * 4).to(dtype)
    found = row_statistics(logits, backend)
    expected = torch.tensor([_by_hand(row) for row in logits]).T
    torch.testing.assert_close(found.measures, expected, atol=5e-6, rtol=1e-5)
    assert found.top_ids[:, 0].tolist() == logits.float().argmax(-1).tolist()


@BACKENDS
def test_names_are_the_lines_of_the_measures(backend: str) -> None:
    found = row_statistics(torch.tensor([[0.0, math.log(2.0), -math.inf]]), backend)
    named = [found.largest, found.log_mass, found.p1, found.p2, found.entropy, found.mean_top]
    expected = [math.log(2), math.log(1.5), 2 / 3, 1 / 3, math.log(3) - 2 / 3 * math.log(2), math.log(2 / 9) / 2]
    torch.testing.assert_close(torch.cat(named), torch.tensor(expected))
    assert found.top_ids[0, :3].tolist() == [1, 0, -1]


@BACKENDS
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_without_a_distribution_says_nan_and_the_others_nothing(backend: str, bad: float) -> None:
    logits = torch.randn(3, 70, generator=torch.Generator().manual_seed(1))
    good = row_statistics(logits, backend)
    logits[1, 33] = bad
    found = row_statistics(logits, backend)
    assert found.measures[1:, 1].isnan().all()
    for row in (0, 2):
        assert torch.equal(found.measures[:, row], good.measures[:, row])


@BACKENDS
def test_a_row_is_the_same_alone_and_in_any_batch(backend: str) -> None:
    logits = torch.randn(9, 300, generator=torch.Generator().manual_seed(2))
    together = row_statistics(logits, backend)
    for row in (0, 4, 8):
        alone = row_statistics(logits[row : row + 1], backend)
        assert torch.equal(alone.measures[:, 0], together.measures[:, row])


def test_the_draw_takes_statistics_from_its_caller() -> None:
    """A draw with given statistics reads none of its own: what it reports is what it was given."""
    logits = torch.randn(2, 64, generator=torch.Generator().manual_seed(3))
    known = row_statistics(logits)
    marked = RowStatistics(known.measures.clone(), known.top_ids, known.top_log_probs)
    marked.measures[4] = 77.0
    assert sample_rows(logits, greedy_parameters(2), statistics=marked).statistics[:, 3].tolist() == [77.0, 77.0]
