"""Puts the losses of several tasks together, so that a frequent one does not drown a rare one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class TaskBalance(nn.Module):
    """No weights: the mean over tokens. Fixed weights: the weighted mean over tokens. Learned ones: see ``forward``."""

    def __init__(self, tasks: list[str], weights: dict[str, float] | Literal["learned"] | None) -> None:
        super().__init__()
        if isinstance(weights, dict) and (unknown := next((name for name in weights if name not in tasks), None)):
            raise ValueError(f"losses.task_weights: there is no task {unknown!r}; there are {', '.join(tasks)}")
        learned = weights == "learned"
        self.log_variances = nn.Parameter(torch.zeros(len(tasks))) if learned else None
        fixed = [1.0 if not isinstance(weights, dict) else weights.get(name, 1.0) for name in tasks]
        self.register_buffer("weights", torch.tensor(fixed), persistent=False)

    def forward(self, sums: Tensor, counts: Tensor, totals: Tensor, log_variances: Tensor | None) -> Tensor:
        """This batch's share of the loss: sums and counts ``[K]`` of the batch, totals ``[K]`` of the whole step.

        Learned: ``sum_k exp(-s_k) L_k + s_k`` over the step's tasks with ``s_k`` the log-variance (Kendall, Gal and
        Cipolla 2018, eq. 7, without the halves), each share of ``s_k`` by the batch's share of the task's tokens.
        """
        if log_variances is not None:
            share = counts / totals.clamp_min(1)
            present = (totals > 0).sum().clamp_min(1)
            weighted = torch.exp(-log_variances) * sums / totals.clamp_min(1) + log_variances * share
            return weighted.sum() / present
        weights: Tensor = self.get_buffer("weights")
        return (weights * sums).sum() / (weights * totals).sum().clamp_min(1e-9)
