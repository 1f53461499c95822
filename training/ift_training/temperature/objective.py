"""The exact policy gradient of temperatures, from answers that were drawn at several fixed ones.

The reward that a policy would get is estimated from the answers of the mixture of all behaviours (multiple importance
sampling with the balance heuristic, Veach and Guibas 1995), normalised by prompt:
``J = sum_i w_i R_i / sum_i w_i`` with ``w_i = pi(answer_i) / mean_b pi_b(answer_i)``.
Its gradient is ``sum_i v_i (R_i - J) sum_t d log pi(y_t)`` with ``v_i = w_i / sum w``, and per token
``d log pi / d log T = -(l_y - E_pT[l]) / T``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ift_training.temperature.partition import token_log_probs
from ift_training.temperature.rewards import advantages
from ift_training.temperature.settings import ObjectiveSettings
from ift_training.temperature.trajectories import Trajectories


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a policy is estimated to get of each prompt, ``[P]``; ``effective``: the share ``[P]`` of its answers that
    the estimate rests on, ``(sum w)^2 / (N sum w^2)``."""

    reward: Tensor
    effective: Tensor


class PolicyGradient:
    """The objective for answers drawn at ``temperatures``, with a head that begins at ``initial``, T_0."""

    def __init__(self, settings: ObjectiveSettings, temperatures: Sequence[float], initial: float) -> None:
        self._settings = settings
        self._initial = initial
        self._behaviours = [math.log(temperature / initial) for temperature in temperatures]

    def log_probs(self, batch: Trajectories, log_factors: Tensor) -> Tensor:
        """``log pi(y)`` of every token, ``[n]``, at ``log T / T_0`` ``[n]``."""
        return token_log_probs(batch.chosen, batch.partition, log_factors, self._initial)

    def loss(self, batch: Trajectories, log_factors: Tensor) -> Tensor:
        """What descends: its gradient is the policy gradient's, its value says nothing but how hard the pull is."""
        own = self.log_probs(batch, log_factors)
        if self._settings.ratio == "trajectory":
            gained = (self._answer_gains(batch, own.detach()) * batch.sum_by_answer(own)).sum()
        else:
            gained = (self._token_gains(batch, own.detach()) * own).sum() / batch.answers
        pulled = batch.mean_by_answer(log_factors**2).mean()
        return self._settings.pull * pulled - gained + gained.detach()

    def _answer_gains(self, batch: Trajectories, own: Tensor) -> Tensor:
        """``v_i (A_i - sum_j v_j A_j) / P``, ``[N]``."""
        shares = self._shares(batch, own)
        gained = advantages(batch.rewards, batch.prompt, batch.prompts)
        mean = _by_prompt(batch, shares * gained)
        return shares * (gained - mean[batch.prompt]) / batch.prompts

    def _token_gains(self, batch: Trajectories, own: Tensor) -> Tensor:
        """``pi(y_t) / pi_b(y_t) A_i``, ``[n]``, with rewards normalised by prompt and temperature.

        Among answers of several temperatures a token would be blamed for what the temperature did elsewhere.
        """
        group = batch.prompt * len(self._behaviours) + batch.behaviour
        gained = advantages(batch.rewards, group, batch.prompts * len(self._behaviours))
        at = torch.tensor(self._behaviours)[batch.behaviour][batch.answer]
        ratio = torch.exp(own - self.log_probs(batch, at))
        return ratio.clamp_max(self._settings.largest_weight) * gained[batch.answer]

    def _weights(self, batch: Trajectories, own: Tensor) -> Tensor:
        """``min(w_i, largest)``, ``[N]``, for log-probabilities of the tokens ``[n]``."""
        drawn = [
            batch.sum_by_answer(self.log_probs(batch, torch.full_like(batch.chosen, at))) for at in self._behaviours
        ]
        mixture = torch.logsumexp(torch.stack(drawn), 0) - math.log(len(drawn))
        return torch.exp(batch.sum_by_answer(own) - mixture).clamp_max(self._settings.largest_weight)

    def _shares(self, batch: Trajectories, own: Tensor) -> Tensor:
        weights = self._weights(batch, own)
        return weights / _by_prompt(batch, weights).clamp_min(1e-30)[batch.prompt]

    @torch.no_grad()
    def estimate(self, batch: Trajectories, log_factors: Tensor) -> Estimate:
        """J of each prompt; of the rewards as they are."""
        shares = self._shares(batch, self.log_probs(batch, log_factors))
        counts = torch.bincount(batch.prompt, minlength=batch.prompts)
        effective = 1 / (_by_prompt(batch, shares**2).clamp_min(1e-30) * counts)
        return Estimate(_by_prompt(batch, shares * batch.rewards), effective)


def _by_prompt(batch: Trajectories, values: Tensor) -> Tensor:
    return torch.zeros(batch.prompts, dtype=values.dtype).index_add(0, batch.prompt, values)
