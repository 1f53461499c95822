"""Truncations by shape and adaptive-p: the papers' formulas worked by hand, then the kernels against float64."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ift_kernels.sample_rows import RowParameters, SampledRows, Truncations, sample_rows
from ift_kernels.sample_rows.api import greedy_parameters
from ift_kernels.sample_rows.reference import sample_rows_reference
from tests.support.equal_rows import equal_rows

KERNELS = ["cpu", "triton"]
BACKENDS = pytest.mark.parametrize("backend", ["cpu", "triton", "reference"])


def _drawing(rows: int, temperature: float = 1.0) -> RowParameters:
    parameters = greedy_parameters(rows)
    parameters.temperature = torch.full((rows,), temperature)
    parameters.seeds = torch.arange(rows) * 7919
    return parameters


def _shapes(rows: int, *, top_n_sigma: float = 0.0, p_less: float = 0.0, top_h: float = 0.0) -> Truncations:
    full = [torch.full((rows,), value) for value in (top_n_sigma, p_less, top_h)]
    return Truncations(full[0], full[1], full[2] if top_h else None)


@cache
def _seeds_of_all_tokens(logits: tuple[float, ...], temperature: float) -> Tensor:
    """A seed for each possible token, with which an untruncated row draws it."""
    parameters = _drawing(4000, temperature)
    tokens = sample_rows(torch.tensor([logits]).repeat(4000, 1), parameters, "cpu").tokens.tolist()
    assert len(set(tokens)) == sum(logit > -math.inf for logit in logits)
    return parameters.seeds[[tokens.index(token) for token in sorted(set(tokens))]]


def _support(logits: list[float], backend: str, temperature: float = 1.0, **shape: float) -> set[int]:
    """The tokens that stay: each that goes has a row that would have drawn it, each that stays one that still does."""
    seeds = _seeds_of_all_tokens(tuple(logits), temperature)
    parameters = _drawing(len(seeds), temperature)
    parameters.seeds, parameters.truncations = seeds, _shapes(len(seeds), **shape)
    rows, statistics = equal_rows(torch.tensor(logits), len(seeds), backend)
    return set(sample_rows(rows, parameters, backend, statistics).tokens.tolist())


def _logs(*probabilities: float) -> list[float]:
    return [math.log(p) for p in probabilities]


# Worked by hand from the papers' formulas, in exact arithmetic where that is possible.


@BACKENDS
def test_top_n_sigma_by_hand(backend: str) -> None:
    """Logits 0, 2, 4, 6: mean 3, sigma = sqrt(5) = 2.236; max - sigma = 3.76, max - 2 sigma = 1.53."""
    assert _support([0.0, 2.0, 4.0, 6.0], backend, 4.0, top_n_sigma=1.0) == {2, 3}
    assert _support([0.0, 2.0, 4.0, 6.0], backend, 4.0, top_n_sigma=2.0) == {1, 2, 3}


@BACKENDS
def test_top_n_sigma_does_not_depend_on_the_temperature(backend: str) -> None:
    assert _support([0.0, 2.0, 4.0, 6.0], backend, 9.0, top_n_sigma=1.0) == {2, 3}
    assert _support([0.0, 2.0, 4.0, 6.0], backend, 1.5, top_n_sigma=1.0) == {2, 3}


@BACKENDS
def test_top_n_sigma_leaves_impossible_tokens_out_of_sigma(backend: str) -> None:
    assert _support([0.0, 2.0, 4.0, 6.0, -math.inf, -math.inf], backend, 4.0, top_n_sigma=1.0) == {2, 3}


@BACKENDS
def test_p_less_by_hand(backend: str) -> None:
    """The sum of squares of (.5, .25, .25) is .375, of (.4, .35, .15, .1) it is .315."""
    assert _support(_logs(0.5, 0.25, 0.25), backend, p_less=1.0) == {0}
    assert _support(_logs(0.4, 0.35, 0.15, 0.1), backend, p_less=1.0) == {0, 1}
    assert _support(_logs(0.25, 0.25, 0.25, 0.25), backend, p_less=1.0) == {0, 1, 2, 3}


@BACKENDS
def test_top_h_by_hand(backend: str) -> None:
    """p = (1/2, 1/4, 1/8, 1/8): H = 1.75 bits. Two tokens have h(1/3) = .918 bits, three 1.379 bits."""
    row = _logs(0.5, 0.25, 0.125, 0.125)
    assert _support(row, backend, top_h=0.5) == {0}  # .875
    assert _support(row, backend, top_h=0.53) == {0, 1}  # .9275
    assert _support(row, backend, top_h=0.79) == {0, 1, 2}  # 1.3825: of two equal tokens the first
    assert _support(row, backend, top_h=1.0) == {0, 1, 2, 3}


@BACKENDS
def test_top_h_of_equal_tokens_keeps_as_many_as_the_bound_allows(backend: str) -> None:
    """16 equal tokens have 4 bits; half of that are 4 tokens."""
    assert _support([1.0] * 16, backend, top_h=0.501) == {0, 1, 2, 3}


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_adaptive_p_by_hand(backend: str) -> None:
    """p = (.5, .3, .2) at the target .3: distances 2/3, 0, 1/3, scores 5 - 10 * 4/15, 5, 5 - 10 / 12."""
    scores = [5 - 10 * (4 / 9) / (5 / 3), 5.0, 5 - 10 * (1 / 9) / (4 / 3)]
    expected = np.exp(scores) / np.exp(scores).sum()
    rows = {"cpu": 4000, "reference": 600}[backend]
    found = _near(rows, backend)
    counts = np.bincount(found.tokens.numpy(), minlength=3)
    # 99.9 % of a chi-squared distribution with 2 degrees of freedom lie below 13.8.
    assert ((counts - expected * rows) ** 2 / (expected * rows)).sum() < 13.8
    assert found.probabilities is not None
    torch.testing.assert_close(found.probabilities, torch.tensor([0.5, 0.3, 0.2])[found.tokens.long()])


def test_adaptive_p_in_triton_draws_the_same_tokens() -> None:
    found, expected = _near(24, "triton"), _near(24, "reference")
    assert set(expected.tokens.tolist()) == {0, 1, 2}
    _assert_as_defined(found, expected)


def _near(rows: int, backend: str) -> SampledRows:
    """Draws from (.5, .3, .2) at the target .3."""
    parameters = _drawing(rows)
    parameters.near = torch.full((rows,), 0.3)
    logits, statistics = equal_rows(torch.tensor(_logs(0.5, 0.3, 0.2)), rows, backend)
    return sample_rows(logits, parameters, backend, statistics)


# The kernels against the float64 definition.


def _mixture(rows: int, generator: torch.Generator) -> RowParameters:
    """Rows of every kind side by side, half of them plain."""

    def some(values: Tensor) -> Tensor:
        return torch.where(torch.rand(rows, generator=generator) < 0.5, values, torch.zeros(rows))

    def uniform() -> Tensor:
        return torch.rand(rows, generator=generator)

    parameters = _drawing(rows)
    parameters.temperature = some(uniform() * 2)
    parameters.top_p = 1 - some(uniform() * 0.5)
    parameters.min_p = some(uniform() * 0.1)
    parameters.truncations = Truncations(some(uniform() * 3), some(torch.ones(rows)), some(uniform() * 0.9))
    parameters.near = torch.where(uniform() < 0.5, uniform(), -torch.ones(rows))
    return parameters


def _assert_as_defined(found: SampledRows, expected: SampledRows) -> None:
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert found.probabilities is not None
    assert expected.probabilities is not None
    torch.testing.assert_close(found.probabilities, expected.probabilities, equal_nan=True, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [9, 500, 3001])
@pytest.mark.parametrize("backend", KERNELS)
def test_equals_the_float64_definition(dtype: torch.dtype, size: int, backend: str) -> None:
    rows, generator = 48 if backend == "cpu" else 10, torch.Generator().manual_seed(size)
    logits = (torch.randn(rows, size, generator=generator) * 3).to(dtype)
    parameters = _mixture(rows, generator)
    _assert_as_defined(sample_rows(logits, parameters, backend), sample_rows_reference(logits, parameters))


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e38])
@pytest.mark.parametrize("backend", KERNELS)
def test_the_ends_of_float32(scale: float, backend: str) -> None:
    logits = (torch.randn(6, 700, generator=torch.Generator().manual_seed(1)) * scale).clamp(-3.4e38, 3.4e38)
    parameters = _drawing(6)
    # The probabilities of tiny logits are all equal, so rounding alone would decide which are above their mean.
    parameters.truncations = _shapes(6, top_n_sigma=0.7, p_less=float(scale > 1), top_h=1.0)
    assert (
        sample_rows(logits, parameters, backend).tokens.tolist()
        == sample_rows_reference(logits, parameters).tokens.tolist()
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(2, 9), place=st.integers(0, 8))
def test_a_row_draws_the_same_token_alone_and_in_any_batch(seed: int, rows: int, place: int) -> None:
    place %= rows
    generator = torch.Generator().manual_seed(seed)
    logits, own = torch.randn(rows, 211, generator=generator), slice(place, place + 1)
    parameters = _mixture(rows, generator)
    shapes = parameters.truncations
    assert shapes is not None
    assert shapes.top_h is not None
    assert parameters.near is not None
    names = ("temperature", "top_p", "min_p", "top_k", "seeds", "steps", "targets")
    alone = RowParameters(*(getattr(parameters, name)[own] for name in names), near=parameters.near[own])  # type: ignore[misc]
    alone.truncations = Truncations(shapes.top_n_sigma[own], shapes.p_less[own], shapes.top_h[own])
    assert sample_rows(logits, parameters).tokens[place] == sample_rows(logits[own], alone).tokens[0]


def test_rows_with_nothing_special_are_as_without_their_neighbours() -> None:
    generator = torch.Generator().manual_seed(4)
    logits, parameters = torch.randn(8, 300, generator=generator), _drawing(8, 0.8)
    plain = sample_rows(logits, parameters)
    parameters.truncations = Truncations(torch.tensor([1.0] + [0.0] * 7), torch.zeros(8), torch.zeros(8))
    parameters.near = torch.tensor([0.4] + [-1.0] * 7)
    mixed = sample_rows(logits, parameters)
    assert torch.equal(plain.tokens[1:], mixed.tokens[1:])
    assert torch.equal(plain.statistics[1:], mixed.statistics[1:])
    assert mixed.probabilities is not None
    assert mixed.probabilities[1:].isnan().all()


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("alpha", [0.0001, 0.3, 0.77, 1.0])
def test_top_h_of_tied_tokens_beside_other_truncations(alpha: float, backend: str) -> None:
    """Few distinct logits, so that nearly every bound falls among equal tokens, in several tiles."""
    generator, rows = torch.Generator().manual_seed(7), 6
    logits = torch.randint(0, 4, (rows, 5000), generator=generator).float()
    parameters = _drawing(rows)
    parameters.truncations = _shapes(rows, top_h=alpha)
    parameters.min_p = torch.tensor([0.0, 0.3] * 3)
    parameters.near = torch.tensor([-1.0, -1.0, -1.0, 1e-4, 1e-3, 0.5])
    _assert_as_defined(sample_rows(logits, parameters, backend), sample_rows_reference(logits, parameters))
