"""Random LoRA factors with their table, and the float64 result of applying them."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from ift_kernels.lora import LoraTable


class Factors:
    """One adapter a rank, for a layer of ``width`` inputs and the given output parts."""

    def __init__(self, ranks: list[int], *, width: int, parts: tuple[int, ...], dtype: torch.dtype) -> None:
        self.a = [[(torch.randn(r, width) / width**0.5).to(dtype) for _ in parts] for r in ranks]
        self.b = [[(torch.randn(r, n) / r**0.5).to(dtype) for n in parts] for r in ranks]
        scales = torch.rand(len(ranks), len(parts)) + 0.5
        self.table = LoraTable(
            a_addresses=torch.tensor([[t.data_ptr() for t in row] for row in self.a]),
            b_addresses=torch.tensor([[t.data_ptr() for t in row] for row in self.b]),
            ranks=torch.tensor([[r] * len(parts) for r in ranks], dtype=torch.int32),
            scales=scales,
            bounds=torch.tensor([0, *accumulate(parts)]),
            columns=(0, *accumulate(parts)),
            max_rank=max(ranks),
        )

    def expected(self, inputs: Tensor, output: Tensor, adapter_of_row: np.ndarray) -> Tensor:
        """``y + scale x A^T B^T`` row by row in float64."""
        result = output.double().clone()
        for row, adapter in enumerate(adapter_of_row.tolist()):
            for part in range(self.table.parts if adapter >= 0 else 0):
                span = slice(self.table.columns[part], self.table.columns[part + 1])
                shrunk = inputs[row].double() @ self.a[adapter][part].double().T
                change = shrunk @ self.b[adapter][part].double()
                result[row, span] += self.table.scales[adapter, part].double() * change
        return result
