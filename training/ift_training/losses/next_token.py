"""Cross entropy of the next token, summed by task."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

IGNORED = -100


def targets_of(labels: Tensor) -> Tensor:
    """Flat index, in ``[B, L]``, of each position that predicts a target: the one before it."""
    wanted = torch.zeros_like(labels, dtype=torch.bool)
    wanted[:, :-1] = labels[:, 1:] != IGNORED
    return wanted.flatten().nonzero()[:, 0]


def next_token_sums(logits: Tensor, targets: Tensor, tasks: Tensor, count: int) -> Tensor:
    """logits ``[n, V]``, targets ``[n]``, tasks ``[n]`` -> ``[count]`` float32: sums of ``-log p(target)``."""
    losses = cross_entropy(logits.float(), targets, reduction="none")
    return torch.zeros(count, device=losses.device).index_add(0, tasks, losses)
