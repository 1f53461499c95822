"""Sampling against its definition, its own distribution and its promises of independence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_kernels.sample_rows import RowParameters, SampledRows, SparseAdjustments, sample_rows
from ift_kernels.sample_rows.api import greedy_parameters
from ift_kernels.sample_rows.reference import philox_uniform, sample_rows_reference


def _parameters(rows: int, generator: torch.Generator, adjustments: SparseAdjustments | None = None) -> RowParameters:
    def uniform() -> torch.Tensor:
        return torch.rand(rows, generator=generator)

    return RowParameters(
        temperature=uniform() * 2 * (uniform() > 0.2),
        top_p=torch.where(uniform() > 0.5, uniform(), torch.ones(rows)),
        min_p=torch.where(uniform() > 0.5, uniform() * 0.3, torch.zeros(rows)),
        top_k=((uniform() > 0.5) * uniform() * 30).int(),
        seeds=torch.randint(-(2**62), 2**62, (rows,), generator=generator),
        steps=torch.arange(rows, dtype=torch.int32),
        targets=torch.where(uniform() > 0.8, 3, -1).int(),
        adjustments=adjustments,
    )


def _assert_same(ours: SampledRows, theirs: SampledRows) -> None:
    assert torch.equal(ours.tokens, theirs.tokens)
    assert torch.equal(ours.top_ids, theirs.top_ids)
    torch.testing.assert_close(ours.statistics, theirs.statistics, atol=5e-6, rtol=1e-5)
    torch.testing.assert_close(ours.top_log_probs, theirs.top_log_probs, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [7, 500, 5003])
@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_equals_the_float64_definition(dtype: torch.dtype, size: int, adjusted: bool, backend: str) -> None:
    rows, generator = 24 if backend == "cpu" else 6, torch.Generator().manual_seed(size)
    logits = (torch.randn(rows, size, generator=generator) * 3).to(dtype)
    adjustments = None
    if adjusted:
        ids = torch.cat([torch.randperm(size, generator=generator)[:3] for _ in range(rows)]).int()
        adjustments = SparseAdjustments(
            torch.arange(0, 3 * rows + 1, 3, dtype=torch.int32),
            ids,
            torch.randint(-1, 3, (rows * 3,), generator=generator, dtype=torch.int32),
            torch.randn(rows * 3, generator=generator),
            *(torch.rand(rows, generator=generator) + 0.5 for _ in range(3)),
        )
    parameters = _parameters(rows, generator, adjustments)
    _assert_same(sample_rows(logits, parameters, backend), sample_rows_reference(logits, parameters))


@pytest.mark.parametrize("backend", ["cpu", "triton", "reference"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_no_distribution_says_so_and_harms_no_other(backend: str, temperature: float) -> None:
    good = torch.randn(8, 203, generator=torch.Generator().manual_seed(0))
    good[6, 100:] = -math.inf
    bad = good.clone()
    bad[1], bad[2, 7], bad[3, 11], bad[4] = math.nan, math.nan, math.inf, -math.inf
    parameters = greedy_parameters(8)
    parameters.temperature[:] = temperature
    parameters.targets[5] = 9
    expected, found = (sample_rows(logits, parameters, backend) for logits in (good, bad))
    broken = torch.tensor([False, True, True, True, True, False, False, False])
    assert found.statistics[broken, 0].isnan().all()
    assert ((found.tokens >= 0) & (found.tokens < 203)).all()
    assert torch.equal(found.tokens[~broken], expected.tokens[~broken])
    assert torch.equal(found.statistics[~broken], expected.statistics[~broken])
    assert torch.isfinite(expected.statistics[:, 0]).all()


def test_generator_is_philox_4x32_10() -> None:
    # Known answer of the reference implementation: counter 0, key 0 gives 0x6627e8d5 first.
    assert philox_uniform(0, 0, 1)[0] == ((0x6627E8D5 >> 9) + 0.5) / 2**23


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(-(2**63), 2**63 - 1), step=st.integers(0, 2**20), rows=st.integers(2, 9), place=st.integers(0, 8)
)
def test_a_row_draws_the_same_token_alone_and_in_any_batch(seed: int, step: int, rows: int, place: int) -> None:
    place %= rows
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, 211, generator=generator)
    parameters = _parameters(rows, generator)
    parameters.seeds[place], parameters.steps[place], parameters.targets[place] = seed, step, -1
    alone = RowParameters(
        *(
            getattr(parameters, n)[place : place + 1]
            for n in ("temperature", "top_p", "min_p", "top_k", "seeds", "steps", "targets")
        )
    )
    assert sample_rows(logits, parameters).tokens[place] == sample_rows(logits[place : place + 1], alone).tokens[0]


@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.8, 0), (1.0, 4)])
def test_draws_follow_the_distribution(top_p: float, top_k: int) -> None:
    rows, size = 40_000, 12
    logits = torch.linspace(0, 2.5, size).repeat(rows, 1)
    parameters = greedy_parameters(rows)
    parameters.temperature, parameters.top_p = torch.full((rows,), 0.9), torch.full((rows,), top_p)
    parameters.top_k, parameters.seeds = torch.full((rows,), top_k, dtype=torch.int32), torch.arange(rows)
    counts = np.bincount(sample_rows(logits, parameters).tokens.numpy(), minlength=size)
    weights = torch.softmax(logits[0].double() / 0.9, -1).numpy()
    order = np.argsort(-weights)
    kept = order[: top_k or size]
    above = np.cumsum(weights[order]) - weights[order]
    kept = np.array([i for i in kept if above[list(order).index(i)] < top_p])
    expected = np.zeros(size)
    expected[kept] = weights[kept] / weights[kept].sum() * rows
    assert counts[expected == 0].sum() == 0
    used = expected > 0
    chi_squared = ((counts[used] - expected[used]) ** 2 / expected[used]).sum()
    degrees = used.sum() - 1
    assert chi_squared < degrees + 4 * math.sqrt(2 * degrees)


@pytest.mark.parametrize("spread", [5.0, 19.0, 21.0, 40.0, 1e7])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 3.0])
def test_values_that_cannot_win_change_no_draw(spread: float, temperature: float) -> None:
    """Noise is not drawn for them; what is drawn is what the definition draws with noise for all."""
    rows = 200
    logits = torch.linspace(-spread, 0, 97)[torch.randperm(97, generator=torch.Generator().manual_seed(1))].repeat(
        rows, 1
    )
    parameters = greedy_parameters(rows)
    parameters.temperature, parameters.seeds = torch.full((rows,), temperature), torch.arange(rows) * 13
    found, expected = sample_rows(logits, parameters), sample_rows_reference(logits, parameters)
    assert torch.equal(found.tokens, expected.tokens)


def test_infinite_logits_are_never_drawn_and_do_not_poison_statistics() -> None:
    logits = torch.full((2, 40), float("-inf"))
    logits[:, 5], logits[:, 9] = 1.0, 1.0
    parameters = greedy_parameters(2)
    parameters.temperature = torch.ones(2)
    result = sample_rows(logits, parameters)
    assert set(result.tokens.tolist()) <= {5, 9}
    torch.testing.assert_close(result.statistics[:, 3], torch.full((2,), math.log(2)))


def test_equal_logits_give_the_first_token() -> None:
    assert sample_rows(torch.zeros(1, 50), greedy_parameters(1)).tokens[0] == 0
