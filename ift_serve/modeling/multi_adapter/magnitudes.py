"""Weight decomposition (DoRA) in a batch of many adapters: outputs of linear layers scaled by row and column.

DoRA (Liu et al. 2024, arXiv:2402.09353, eq. 5) computes ``g (W x + s B A x) + bias`` with ``g = m / |W + s B A|``, a
factor for each output. Here ``g`` is multiplied into B once, so the low-rank kernels stay as they are, and what is left
is to scale the base layer's product, ``y = g y + (1 - g) bias``, in the rows of such adapters and in no others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 1024
"""Outputs whose whole weights are looked at together."""


@dataclass(slots=True)
class OutputScale:
    """``y -> ratio y + shift`` for the outputs ``[N]`` of a linear layer, both float32; no shift without a bias."""

    ratio: Tensor
    shift: Tensor | None


def magnitude_ratio(magnitude: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """``m / |W + s B A|`` in float32: magnitude ``[N]``, weight ``[N, K]``, a ``[r, K]``, b ``[N, r]`` -> ``[N]``."""
    norms = torch.empty(weight.shape[0], dtype=torch.float32, device=weight.device)
    low = a.to(weight.device).float()
    for first in range(0, weight.shape[0], _CHUNK):
        part = slice(first, first + _CHUNK)
        changed = torch.addmm(weight[part].float(), b[part].to(weight.device).float(), low, alpha=scale)
        norms[part] = torch.linalg.vector_norm(changed, dim=1, dtype=torch.float64).float()
    return magnitude.to(weight.device).float() / norms


def output_scale(ratio: Tensor, bias: Tensor | None) -> OutputScale:
    """The scale of a layer whose bias stays as it is."""
    return OutputScale(ratio, None if bias is None else (1.0 - ratio) * bias.to(ratio))


def scale_rows(output: Tensor, rows: Tensor, scale: OutputScale) -> None:
    """Scale some rows ``[n]`` of ``output [T, N]`` in place; computed in float32, rounded once."""
    values = output[rows].float() * scale.ratio
    output[rows] = (values if scale.shift is None else values + scale.shift).to(output.dtype)


@dataclass(slots=True)
class BatchMagnitudes:
    """The rows of a batch that belong to decomposed adapters.

    Each entry of ``adapters`` is an adapter's rows ``[n]`` int64 and its scales by index of the adaptable linear.
    """

    adapters: list[tuple[Tensor, dict[int, OutputScale]]]

    def scale(self, index: int, output: Tensor) -> None:
        """Scale the product of linear ``index`` in place."""
        for rows, scales in self.adapters:
            if (found := scales.get(index)) is not None:
                scale_rows(output, rows, found)

    @classmethod
    def of_rows(
        cls, slot_of_row: NDArray[np.int32], scales: dict[int, dict[int, OutputScale]], device: torch.device
    ) -> BatchMagnitudes | None:
        """Of the slots of a batch's rows; None where none of them is decomposed. ``scales`` by slot."""
        present = [slot for slot in np.unique(slot_of_row).tolist() if slot in scales]
        if not present:
            return None
        rows = [torch.from_numpy(np.flatnonzero(slot_of_row == slot)).to(device) for slot in present]
        return cls([(chosen, scales[slot]) for chosen, slot in zip(rows, present, strict=True)])
