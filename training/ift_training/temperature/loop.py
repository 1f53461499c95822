"""The steps: the policy gradient on some prompts' answers at a time, judged on held-out prompts, the best step kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ift_training.base_recipe import RecipeError
from ift_training.temperature.objective import PolicyGradient
from ift_training.temperature.policy import HeadPolicy, Policy
from ift_training.temperature.settings import LearningSettings
from ift_training.temperature.trajectories import PromptFeatures, Trajectories, join


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts with the features and the rewards of their answers, and the task of each."""

    features: list[PromptFeatures]
    rewards: list[list[float]]
    tasks: list[str]

    def batch(self, chosen: Sequence[int]) -> Trajectories:
        """Some of the prompts."""
        return join([self.features[i] for i in chosen], [self.rewards[i] for i in chosen])

    def whole(self) -> Trajectories:
        """All of them."""
        return self.batch(range(len(self.features)))


@dataclass(slots=True)
class Learned:
    """What came of the steps: a line of ``history`` an estimate; ``step`` is the one whose weights are kept."""

    history: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0
    reward: float = -math.inf


def learn(
    policy: HeadPolicy,
    training: PromptSet,
    held_out: PromptSet,
    objective: PolicyGradient,
    settings: LearningSettings,
    seed: int,
    told: Callable[[int, str], None] = lambda step, note: None,
) -> Learned:
    """Train the head, and leave it at the step whose estimated reward on held-out prompts was best, the first included.

    told: called with each step and a note. A function of its arguments alone. Raises RecipeError where it diverges.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = [p for p in policy.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    apart, learned = held_out.whole(), Learned()
    best = _copied(policy)
    order: list[int] = []
    for step in range(settings.steps + 1):
        if step % settings.every == 0 or step == settings.steps:
            line = _estimate(policy, apart, held_out.tasks, objective, step)
            learned.history.append(line)
            told(step, f"held-out reward {line['score']:.3f}")
            if line["score"] > learned.reward:
                learned.step, learned.reward, best = step, line["score"], _copied(policy)
        if step == settings.steps:
            break
        if len(order) < settings.prompts:
            order += torch.randperm(len(training.features), generator=generator).tolist()
        chosen, order = order[: settings.prompts], order[settings.prompts :]
        _step(policy, training.batch(chosen), objective, optimiser, settings, step)
        told(step + 1, "")
    policy.load_state_dict(best)
    return learned


def _step(
    policy: HeadPolicy,
    batch: Trajectories,
    objective: PolicyGradient,
    optimiser: torch.optim.Optimizer,
    settings: LearningSettings,
    step: int,
) -> None:
    optimiser.zero_grad()
    loss = objective.loss(batch, policy.log_factors(batch))
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_([p for p in policy.parameters() if p.requires_grad], settings.max_grad_norm)
    if not math.isfinite(float(norm)):
        raise RecipeError(f"learning.learning_rate: the training diverged at step {step}; lower it")
    optimiser.step()


def _copied(policy: HeadPolicy) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in policy.state_dict().items()}


@torch.no_grad()
def _estimate(
    policy: Policy, batch: Trajectories, tasks: Sequence[str], objective: PolicyGradient, step: int
) -> dict[str, Any]:
    """A line of the history: estimated reward, effective share and mean temperature factor, whole and by task."""
    factors = policy.log_factors(batch)
    found = objective.estimate(batch, factors)
    pulled = objective.loss(batch, factors)
    line: dict[str, Any] = {
        "step": step,
        "score": float(found.reward.mean()),
        "effective": float(found.effective.mean()),
        "pull": float(pulled),
        "factor": float(factors.exp().mean()),
    }
    by_token, places = batch.token_prompt, torch.arange(batch.prompts)
    for task in sorted(set(tasks)):
        own = torch.tensor([name == task for name in tasks])
        line[f"score_{task}"] = float(found.reward[own].mean())
        line[f"factor_{task}"] = float(factors[torch.isin(by_token, places[own])].exp().mean())
    return line
