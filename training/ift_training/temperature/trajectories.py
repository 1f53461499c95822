"""Features of drawn answers: what a head sees before each token, and what the policy gradient needs of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PromptFeatures:
    """All answers to one prompt, token after token; n tokens of N answers.

    hidden: ``[n, d]``, before the head, in the model's dtype. statistics: ``[n, 2]``, entropy and ``p1 - p2`` of the
    raw distribution. chosen: ``[n]``, the drawn token's logit less the largest. partition: ``[n, 32]``, see
    :mod:`ift_training.temperature.partition`. answer: ``[n]`` int64, which answer a token is of. behaviour: ``[N]``
    int64, at which of the rollouts' temperatures an answer was drawn. instruction: ``[1, d_c]``, zero columns without
    encoder. All other floats are float32.
    """

    hidden: Tensor
    statistics: Tensor
    chosen: Tensor
    partition: Tensor
    answer: Tensor
    behaviour: Tensor
    instruction: Tensor


@dataclass(frozen=True, slots=True)
class Trajectories:
    """The answers to several prompts; as :class:`PromptFeatures`, with the prompt of each answer and its reward."""

    hidden: Tensor
    statistics: Tensor
    chosen: Tensor
    partition: Tensor
    answer: Tensor
    behaviour: Tensor
    instruction: Tensor
    prompt: Tensor
    rewards: Tensor

    @property
    def prompts(self) -> int:
        """How many prompts there are."""
        return self.instruction.shape[0]

    @property
    def answers(self) -> int:
        """How many answers there are."""
        return self.behaviour.shape[0]

    @property
    def token_prompt(self) -> Tensor:
        """``[n]``, the prompt of each token."""
        return self.prompt[self.answer]

    def sum_by_answer(self, values: Tensor) -> Tensor:
        """``[n] -> [N]``."""
        return torch.zeros(self.answers, dtype=values.dtype).index_add(0, self.answer, values)

    def mean_by_answer(self, values: Tensor) -> Tensor:
        """``[n] -> [N]``, the mean over an answer's tokens."""
        return self.sum_by_answer(values) / torch.bincount(self.answer, minlength=self.answers).clamp_min(1)


def join(parts: Sequence[PromptFeatures], rewards: Sequence[Sequence[float]]) -> Trajectories:
    """Several prompts' features as one; rewards: by prompt and answer."""
    joined = {field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(PromptFeatures)}
    counts = torch.tensor([len(part.behaviour) for part in parts])
    first = torch.cumsum(counts, 0) - counts
    joined["answer"] = torch.cat([part.answer + start for part, start in zip(parts, first.tolist(), strict=True)])
    prompt = torch.repeat_interleave(torch.arange(len(parts)), counts)
    flat = torch.tensor([reward for own in rewards for reward in own], dtype=torch.float32)
    return Trajectories(prompt=prompt, rewards=flat, **joined)
