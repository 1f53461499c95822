"""What is kept of a row of logits gives its probabilities and their gradients at every temperature."""

from __future__ import annotations

import pytest
import torch

from ift_training.temperature.partition import fit_partition, log_partition, token_log_probs
from tests.training.temperature.cases import LN3


def _logits(kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(64, 3000, generator=generator, dtype=torch.float64)
    if kind == "flat":
        return rows * 0.1
    if kind == "sure":
        rows[torch.arange(64), torch.randint(0, 3000, (64,), generator=generator)] += 12
        return rows
    return rows * 3


@pytest.mark.parametrize(("initial", "dtype"), [(0.7, torch.float32), (1.0, torch.float32), (1.0, torch.float64)])
@pytest.mark.parametrize("kind", ["flat", "wide", "sure"])
def test_gradients_are_those_of_the_full_logits(kind: str, initial: float, dtype: torch.dtype) -> None:
    logits = _logits(kind)
    drawn = torch.arange(64) * 7
    factors = torch.linspace(-LN3, LN3, 64, requires_grad=True)
    chosen = (logits.gather(1, drawn[:, None])[:, 0] - logits.amax(1)).float()
    found = token_log_probs(chosen, fit_partition(logits.to(dtype), initial), factors, initial)
    found.sum().backward()
    exact = factors.detach().double().requires_grad_()
    scaled = torch.log_softmax(logits / (initial * exact.exp())[:, None], 1)
    wanted = scaled.gather(1, drawn[:, None])[:, 0]
    wanted.sum().backward()
    assert factors.grad is not None and exact.grad is not None
    assert torch.allclose(found.double(), wanted, atol=1e-4, rtol=1e-5)
    assert torch.allclose(factors.grad.double(), exact.grad, atol=2e-3, rtol=1e-4)


def test_the_gradient_is_the_formula_of_the_literature() -> None:
    """``d log pi / d log T = -(l_y - E_pT[l]) / T``, and a finite difference of the log-probability."""
    logits, initial = _logits("wide")[:8], 1.0
    drawn, at = torch.arange(8), torch.full((8,), 0.3, dtype=torch.float64)
    chosen = logits.gather(1, drawn[:, None])[:, 0] - logits.amax(1)
    kept = fit_partition(logits, initial).double()
    factors = at.clone().requires_grad_()
    token_log_probs(chosen, kept, factors, initial).sum().backward()
    temperature = at.exp()
    probs = torch.softmax(logits / temperature[:, None], 1)
    formula = -(logits.gather(1, drawn[:, None])[:, 0] - (probs * logits).sum(1)) / temperature
    step = 1e-4
    upper, lower = (token_log_probs(chosen, kept, at + sign * step, initial) for sign in (1, -1))
    assert factors.grad is not None
    assert torch.allclose(factors.grad, formula, atol=1e-3)
    assert torch.allclose(factors.grad, (upper - lower) / (2 * step), atol=1e-5)


def test_it_stays_finite_where_tokens_are_impossible() -> None:
    logits = torch.full((2, 50), float("-inf"), dtype=torch.float64)
    logits[:, :3] = torch.tensor([1.0, 0.0, -80.0])
    factors = torch.tensor([-LN3, LN3], requires_grad=True)
    log_partition(fit_partition(logits, 1.0), factors).sum().backward()
    assert factors.grad is not None and torch.isfinite(factors.grad).all()
