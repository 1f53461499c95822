"""Definition of the predicted temperatures, in float64 PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import gelu

from ift_kernels.lora import view_at
from ift_kernels.row_statistics.types import RowStatistics
from ift_kernels.temperature_heads.types import LARGEST_FACTOR, VECTORS, HeadRows, HeadTable


def temperature_heads_reference(
    hidden: Tensor, statistics: RowStatistics, base: Tensor, table: HeadTable, rows: HeadRows
) -> Tensor:
    """See :func:`ift_kernels.temperature_heads.temperature_heads`. All on the CPU."""
    result = base.clone()
    for row, slot in enumerate(rows.slots.tolist()):
        if slot and base[row] > 0:
            factor = math.exp(math.log(LARGEST_FACTOR) * _output(hidden, statistics, table, rows, row, slot))
            predicted = torch.clamp(base[row].double() * factor, rows.lowest[row].double(), rows.highest[row].double())
            result[row] = predicted.float()
    return result


def _output(hidden: Tensor, statistics: RowStatistics, table: HeadTable, rows: HeadRows, row: int, slot: int) -> float:
    """``tanh(u)`` of a row; 0 without a head."""
    width = int(table.widths[slot])
    if not width:
        return 0.0
    matrix = view_at(int(table.matrices[slot]), (width, hidden.shape[1]), hidden).double()
    vectors = view_at(int(table.vectors[slot]), (VECTORS, width), table.biases).double()
    features = matrix @ hidden[row].double() + vectors[0]
    features += vectors[1] * statistics.entropy[row].double()
    features += vectors[2] * (statistics.p1[row].double() - statistics.p2[row].double())
    if address := int(rows.instructions[row]):
        features += view_at(address, (1, width), table.biases)[0].double()
    return float(torch.tanh(gelu(features) @ vectors[3] + table.biases[slot].double()))
