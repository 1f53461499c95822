"""Answers over full logits, of which every probability is known exactly, and their features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ift_training.temperature.partition import fit_partition
from ift_training.temperature.trajectories import PromptFeatures, Trajectories, join


@dataclass(frozen=True)
class Case:
    """``logits`` ``[n, V]`` float64 of all tokens, ``drawn`` ``[n]``, beside the features made of them."""

    logits: Tensor
    drawn: Tensor
    batch: Trajectories


def random_case(
    *, prompts: int = 3, temperatures: tuple[float, ...] = (0.5, 1.0, 2.0), samples: int = 2, initial: float = 1.0
) -> Case:
    """Answers of one to four tokens, as drawn at each of the temperatures, with random rewards."""
    generator = torch.Generator().manual_seed(3)
    parts, logits, drawn, rewards = [], [], [], []
    for _ in range(prompts):
        count = len(temperatures) * samples
        lengths = torch.randint(1, 5, (count,), generator=generator)
        n = int(lengths.sum())
        rows = torch.randn(n, 40, generator=generator, dtype=torch.float64) * 3
        behaviour = torch.arange(len(temperatures)).repeat_interleave(samples)
        answer = torch.repeat_interleave(torch.arange(count), lengths)
        at = torch.tensor(temperatures, dtype=torch.float64)[behaviour][answer]
        tokens = torch.multinomial(torch.softmax(rows / at[:, None], 1), 1, generator=generator)[:, 0]
        logits.append(rows)
        drawn.append(tokens)
        rewards.append(torch.rand(count, generator=generator).tolist())
        parts.append(
            PromptFeatures(
                hidden=torch.randn(n, 8, generator=generator),
                statistics=torch.rand(n, 2, generator=generator),
                chosen=(rows.gather(1, tokens[:, None])[:, 0] - rows.amax(1)).float(),
                partition=fit_partition(rows, initial),
                answer=answer,
                behaviour=behaviour,
                instruction=torch.randn(1, 4, generator=generator),
            )
        )
    return Case(torch.cat(logits), torch.cat(drawn), join(parts, rewards))


def exact_log_probs(case: Case, log_factors: Tensor, initial: float = 1.0) -> Tensor:
    """``log softmax(l / (T_0 e^u))_y`` in float64, of the full logits."""
    scaled = case.logits / (initial * log_factors.double().exp())[:, None]
    return torch.log_softmax(scaled, 1).gather(1, case.drawn[:, None])[:, 0]


def by_answer(case: Case, values: Tensor) -> Tensor:
    """Sums over the tokens of each answer."""
    return torch.zeros(case.batch.answers, dtype=values.dtype).index_add(0, case.batch.answer, values)


LN3 = math.log(3)
