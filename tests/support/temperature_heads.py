"""Heads of several adapters as the kernel reads them, with the modules that define them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ift_kernels.temperature_heads import HeadTable
from ift_serve.modeling.components.heads import TemperatureHead


def trained_head(hidden: int, instruction: int, width: int, seed: int) -> TemperatureHead:
    """A head whose every parameter is away from zero, as training leaves it."""
    torch.manual_seed(seed)
    head = TemperatureHead(hidden, instruction, width)
    nn.init.normal_(head.output.weight, std=0.5)
    nn.init.normal_(head.output.bias, std=0.2)
    return head.requires_grad_(False)


def table_of(heads: list[TemperatureHead | None], dtype: torch.dtype) -> tuple[HeadTable, list[Tensor]]:
    """The table of heads in slots 1, 2, ..., and the tensors that it points to."""
    count = len(heads) + 1
    table = HeadTable(
        torch.zeros(count, dtype=torch.int64),
        torch.zeros(count, dtype=torch.int64),
        torch.zeros(count, dtype=torch.int32),
        torch.zeros(count),
        0,
    )
    kept: list[Tensor] = []
    for slot, head in enumerate(heads, 1):
        if head is None:
            continue
        matrix = head.hidden.weight.to(dtype).contiguous()
        vectors = torch.stack(
            (head.hidden.bias, head.statistics.weight[:, 0], head.statistics.weight[:, 1], head.output.weight[0])
        ).float()
        kept += [matrix, vectors]
        table.matrices[slot], table.vectors[slot] = matrix.data_ptr(), vectors.data_ptr()
        table.widths[slot], table.biases[slot] = len(matrix), head.output.bias[0]
        table.max_width = max(table.max_width, len(matrix))
    return table, kept
