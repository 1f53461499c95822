"""The temperature heads of all resident adapters, as one launch reads them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ift_kernels.temperature_heads import HeadTable
from ift_serve.modeling.components.heads import TemperatureHead


@dataclass(slots=True)
class PreparedHead:
    """One adapter's: ``matrix`` ``W_h [width, d]`` in the model's dtype, contiguous; in float32 as they were stored
    ``vectors`` ``[4, width]``: the bias, ``W_f``'s columns for the entropy and for p1 - p2, and ``w``; ``bias``: b;
    ``instruction``: ``W_c [width, d_c]``, None where c has no part in it."""

    matrix: Tensor
    vectors: Tensor
    bias: float
    instruction: Tensor | None

    @classmethod
    def of(cls, exact: TemperatureHead, served: TemperatureHead, device: str) -> PreparedHead:
        """Small parameters from the head as it was stored, the large one from the head in the model's dtype."""

        def floats(tensor: Tensor) -> Tensor:
            return tensor.detach().to(device=device, dtype=torch.float32).contiguous()

        features = exact.statistics.weight
        vectors = torch.stack((exact.hidden.bias, features[:, 0], features[:, 1], exact.output.weight[0]))
        instruction = None if exact.instruction is None else floats(exact.instruction.weight)
        return cls(served.hidden.weight.detach(), floats(vectors), exact.output.bias.item(), instruction)

    def of_instruction(self, instruction: Tensor) -> Tensor | None:
        """``W_c c [width]`` float32 of a pooled instruction ``[d_c]``."""
        if self.instruction is None:
            return None
        return (self.instruction @ instruction.float()).contiguous()


class TemperatureTable:
    """The heads by slot; slot 0 is the base model's and stays empty."""

    def __init__(self, slots: int, device: str) -> None:
        def zeros(dtype: torch.dtype) -> Tensor:
            return torch.zeros(slots + 1, dtype=dtype, device=device)

        self.table = HeadTable(
            zeros(torch.int64), zeros(torch.int64), zeros(torch.int32), zeros(torch.float32), max_width=0
        )

    def place(self, slot: int, head: PreparedHead | None) -> None:
        """Write a head into a slot; an earlier one there is replaced."""
        self.clear(slot)
        if head is None:
            return
        table, width = self.table, head.matrix.shape[0]
        table.matrices[slot], table.vectors[slot] = head.matrix.data_ptr(), head.vectors.data_ptr()
        table.widths[slot], table.biases[slot] = width, head.bias
        table.max_width = max(table.max_width, width)

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self.table.widths[slot] = 0
