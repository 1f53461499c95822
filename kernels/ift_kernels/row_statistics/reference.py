"""Definition of the statistics, in float64 PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ift_kernels.row_statistics.types import TOP, RowStatistics


def row_statistics_reference(logits: Tensor) -> RowStatistics:
    """See :func:`ift_kernels.row_statistics.row_statistics`."""
    rows, size = logits.shape
    raw = logits.detach().cpu().double()
    log_probs = torch.log_softmax(raw, dim=-1)
    count = min(TOP, size)
    # By the logits themselves: log-probabilities of some that differ are equal.
    order = torch.sort(raw, dim=-1, descending=True, stable=True).indices
    top_values = log_probs.gather(1, order)
    top_ids = torch.full((rows, TOP), -1, dtype=torch.int32)
    possible = top_values[:, :count] > float("-inf")
    top_ids[:, :count] = torch.where(possible, order[:, :count].int(), -1)
    top_log_probs = torch.full((rows, TOP), float("-inf"))
    top_log_probs[:, :count] = top_values[:, :count].float()
    probabilities = log_probs.exp()
    largest = raw.amax(-1)
    measures = (
        largest,
        torch.logsumexp(raw - largest[:, None], -1),
        top_values[:, 0].exp(),
        top_values[:, 1].exp() if size > 1 else torch.zeros(rows, dtype=torch.float64),
        -(probabilities * log_probs.masked_fill(probabilities == 0, 0.0)).sum(-1),
        top_values[:, :count].where(possible, 0.0).sum(-1) / possible.sum(-1),
    )
    return RowStatistics(torch.stack(measures).float(), top_ids, top_log_probs)
