"""Definition of the gated addition."""

from __future__ import annotations

import torch
from torch import Tensor

from ift_kernels.gated_add.types import Gates


def gated_add_reference(hidden: Tensor, delta: Tensor | None, layer: int, gates: Gates) -> None:
    """See :func:`ift_kernels.gated_add.gated_add`."""
    if delta is not None:
        hidden += delta
    if gates.stacked is None:
        gates.stacked = [
            (torch.stack([t.offset for t in group.terms]), torch.stack([t.value for t in group.terms]))
            for group in gates.groups
        ]
    for group, (offsets, values) in zip(gates.groups, gates.stacked, strict=True):
        states = hidden if group.rows is None else hidden[group.rows]
        offset, value = offsets[group.sequence, layer], values[group.sequence, layer]
        narrow = torch.addmm(offset.to(states.dtype), states, group.down[layer].T)
        changed = torch.addcmul(states, torch.sigmoid(narrow @ group.up[layer]), value)
        hidden[slice(None) if group.rows is None else group.rows] = changed
