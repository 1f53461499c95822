"""Rewards of the answers to one prompt, and how far each lies from its group's mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ift_training.data.records import Record
from ift_training.temperature.verifier import Verifier

_LEAST_SPREAD = 1e-6


def rewards_of(record: Record, answers: Sequence[str], verifier: Verifier, novelty: float) -> list[float]:
    """``verdict (1 - w + w new)`` of answers to one prompt that were drawn alike; w is the weight of novelty.

    new: 1 less the share of the other answers that hold a pair of neighbouring words, averaged over the answer's pairs.
    """
    verdicts = [verifier(record, answer) for answer in answers]
    if not novelty:
        return verdicts
    pairs = [_pairs(answer) for answer in answers]
    holders = Counter(pair for own in pairs for pair in own)
    others = max(1, len(answers) - 1)
    new = [1 - sum(holders[p] - 1 for p in own) / (others * len(own)) if own else 0.0 for own in pairs]
    return [verdict * (1 - novelty + novelty * n) for verdict, n in zip(verdicts, new, strict=True)]


def _pairs(answer: str) -> set[tuple[str, str]]:
    words = answer.lower().split()
    return set(zip(["", *words], [*words, ""], strict=True))


def advantages(rewards: Tensor, group: Tensor, groups: int) -> Tensor:
    """``(R - mean) / deviation`` within each group, ``[N]``; zeros where all of a group are worth the same.

    group: ``[N]`` int64 in ``0 .. groups - 1``.
    """
    counts = torch.bincount(group, minlength=groups).clamp_min(1).to(rewards.dtype)

    def mean(values: Tensor) -> Tensor:
        return torch.zeros(groups, dtype=values.dtype).index_add(0, group, values) / counts

    centred = rewards - mean(rewards)[group]
    deviation = mean(centred**2).sqrt()[group]
    return torch.where(deviation > _LEAST_SPREAD, centred / deviation.clamp_min(_LEAST_SPREAD), 0.0)
