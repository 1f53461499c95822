"""Representation loss: distance of the instruction vector from a projection of the response states."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ift_serve.modeling.components.tokens import TokenBatch, pool


class Projection(nn.Module):
    """Response states to the space of c. Needed in training only."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, width)

    def forward(self, hidden: Tensor, tokens: TokenBatch) -> Tensor:
        """Hidden states ``[T, d]``, averaged over each sequence's response -> ``[S, d_c]``."""
        chosen = tokens.is_response.nonzero()[:, 0]
        scores = torch.zeros(len(chosen), device=hidden.device)
        pooled = pool(hidden[chosen].to(self.linear.weight.dtype), scores, tokens.sequence[chosen], tokens.sequences)
        projected: Tensor = self.linear(pooled)
        return projected


def representation_sum(instruction: Tensor, projected: Tensor, counted: Tensor) -> Tensor:
    """Both ``[S, d_c]``, counted ``[S]`` bool -> sum over sequences of the mean squared difference."""
    difference = (instruction - projected)[counted].float()
    return difference.pow(2).mean(dim=-1).sum()
