"""The policy gradient against automatic differentiation of what it estimates, over full logits in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ift_training.temperature.objective import PolicyGradient
from ift_training.temperature.settings import ObjectiveSettings
from tests.training.temperature.cases import Case, by_answer, exact_log_probs, random_case

TEMPERATURES = (0.5, 1.0, 2.0)


def _objective(**changes: object) -> PolicyGradient:
    settings = ObjectiveSettings.model_validate({"pull": 0.0, "largest_weight": 1e6, **changes})
    return PolicyGradient(settings, TEMPERATURES, 1.0)


def _standardised(rewards: Tensor) -> Tensor:
    return (rewards - rewards.mean()) / rewards.std(unbiased=False)


def _estimated(case: Case, factors: Tensor, worth: list[Tensor]) -> Tensor:
    """``mean over prompts of sum w R / sum w``, written down again from the definition."""
    own = by_answer(case, exact_log_probs(case, factors))
    drawn = [by_answer(case, exact_log_probs(case, torch.full_like(factors, math.log(t)))) for t in TEMPERATURES]
    weights = own.exp() / torch.stack(drawn).exp().mean(0)
    values = []
    for prompt, rewards in enumerate(worth):
        mine = weights[case.batch.prompt == prompt]
        values.append((mine * rewards).sum() / mine.sum())
    return torch.stack(values).mean()


def _rewards(case: Case) -> list[Tensor]:
    return [case.batch.rewards[case.batch.prompt == p].double() for p in range(case.batch.prompts)]


def _factors(case: Case) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.rand(case.batch.chosen.shape[0], generator=generator) * 1.6 - 0.8


def test_the_gradient_is_that_of_the_estimated_reward() -> None:
    case = random_case()
    found = _factors(case).requires_grad_()
    _objective().loss(case.batch, found).backward()
    exact = found.detach().double().requires_grad_()
    (-_estimated(case, exact, [_standardised(r) for r in _rewards(case)])).backward()
    assert found.grad is not None and exact.grad is not None
    assert exact.grad.abs().max() > 1e-2
    assert torch.allclose(found.grad.double(), exact.grad, atol=1e-4)


def test_the_gradient_is_a_finite_difference() -> None:
    case = random_case()
    found = _factors(case).requires_grad_()
    _objective().loss(case.batch, found).backward()
    worth = [_standardised(r) for r in _rewards(case)]
    assert found.grad is not None
    for place in range(0, len(found), 7):
        step = torch.zeros_like(found, dtype=torch.float64)
        step[place] = 1e-5
        at = found.detach().double()
        slope = (_estimated(case, at + step, worth) - _estimated(case, at - step, worth)) / 2e-5
        assert float(-slope) == pytest.approx(float(found.grad[place]), abs=1e-4)


def test_the_estimate_is_of_the_rewards_as_they_are() -> None:
    case = random_case()
    factors = _factors(case)
    found = _objective().estimate(case.batch, factors)
    assert float(found.reward.mean()) == pytest.approx(
        float(_estimated(case, factors.double(), _rewards(case))), abs=1e-4
    )
    assert ((found.effective > 0) & (found.effective <= 1 + 1e-5)).all()


def test_a_token_is_weighed_by_itself_and_blamed_among_answers_of_its_temperature() -> None:
    case = random_case(samples=4)
    batch = case.batch
    found = _factors(case).requires_grad_()
    _objective(ratio="token").loss(batch, found).backward()
    exact = found.detach().double().requires_grad_()
    own = exact_log_probs(case, exact)
    at = torch.tensor(TEMPERATURES)[batch.behaviour].log()[batch.answer]
    ratio = (own - exact_log_probs(case, at)).exp()
    advantage = torch.zeros(batch.answers, dtype=torch.float64)
    for prompt in range(batch.prompts):
        for behaviour in range(len(TEMPERATURES)):
            group = (batch.prompt == prompt) & (batch.behaviour == behaviour)
            advantage[group] = _standardised(batch.rewards[group].double())
    # The derivative of the ratio is the ratio times that of the log-probability.
    (-(ratio * advantage[batch.answer]).sum() / batch.answers).backward()
    assert found.grad is not None and exact.grad is not None
    assert torch.allclose(found.grad.double(), exact.grad, rtol=1e-3, atol=1e-4)


def test_the_pull_alone_leads_back_to_the_initial_temperature() -> None:
    case = random_case()
    constant = torch.ones_like(case.batch.rewards)
    batch = type(case.batch)(**{**{f: getattr(case.batch, f) for f in case.batch.__slots__}, "rewards": constant})
    factors = _factors(case).requires_grad_()
    _objective(pull=0.5).loss(batch, factors).backward()
    assert factors.grad is not None
    assert torch.equal(factors.grad.sign(), factors.detach().sign())


def test_weights_are_cut() -> None:
    case = random_case()
    cold = torch.full_like(case.batch.chosen, -1.0)
    free, cut = (_objective(largest_weight=most).estimate(case.batch, cold) for most in (1e6, 1.0))
    assert float(cut.effective.mean()) > float(free.effective.mean())
