"""LoRA tables for the kernels: addresses, ranks and scales of every linear layer by slot, and the head biases."""

from __future__ import annotations

import torch
from torch import Tensor

from ift_kernels.lora import LoraTable
from ift_serve.modeling.decoder.adaptable_layers import AdaptableLinear
from ift_serve.modeling.multi_adapter.prepared import Factors, PreparedAdapter


def _empty_table(linear: AdaptableLinear, rows: int, max_rank: int, device: str) -> LoraTable:
    shape = (rows, len(linear.paths))
    return LoraTable(
        a_addresses=torch.zeros(shape, dtype=torch.int64, device=device),
        b_addresses=torch.zeros(shape, dtype=torch.int64, device=device),
        ranks=torch.zeros(shape, dtype=torch.int32, device=device),
        scales=torch.zeros(shape, dtype=torch.float32, device=device),
        bounds=torch.tensor(linear.columns, dtype=torch.int64, device=device),
        columns=linear.columns,
        max_rank=max_rank,
    )


class AdapterTables:
    """Rows ``0 .. slots``; row 0 is the base model and stays empty.

    A linear's table is handed out only to batches with an adapter that has a factor for it, so layers that none
    touches cost nothing.
    """

    def __init__(
        self,
        adaptable: list[AdaptableLinear],
        head: AdaptableLinear,
        *,
        slots: int,
        layers: int,
        heads: int,
        max_rank: int,
        device: str,
    ) -> None:
        everything = [*adaptable, head]
        self._tables = [_empty_table(linear, slots + 1, max_rank, device) for linear in everything]
        self._users = [0] * len(everything)
        self._used: dict[int, list[int]] = {}
        self.head_bias: Tensor = torch.zeros((layers, slots + 1, heads), dtype=torch.float32, device=device)

    def linears(self, slots: list[int]) -> list[LoraTable | None]:
        """One entry an adaptable linear; None where none of the adapters in ``slots`` changes it."""
        changed = set().union(*(self._used.get(slot, ()) for slot in slots))
        return [table if index in changed else None for index, table in enumerate(self._tables[:-1])]

    @property
    def all_linears(self) -> list[LoraTable]:
        """Every adaptable linear's table, in use or not: addresses that a CUDA graph may keep."""
        return self._tables[:-1]

    @property
    def everything(self) -> list[LoraTable]:
        """All tables, the head's last."""
        return self._tables

    @property
    def head(self) -> LoraTable | None:
        """The language head's."""
        return self._tables[-1] if self._users[-1] else None

    def place(self, slot: int, adapter: PreparedAdapter) -> None:
        """Write an adapter into a slot; an earlier one there is replaced."""
        self.clear(slot)
        used = []
        for index, parts in enumerate([*adapter.linears, [adapter.head]]):
            if any(part is not None for part in parts):
                used.append(index)
                self._fill(self._tables[index], slot, parts)
        for index in used:
            self._users[index] += 1
        self._used[slot] = used
        if adapter.head_bias is not None:
            self.head_bias[:, slot] = adapter.head_bias

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        for index in self._used.pop(slot, ()):
            self._users[index] -= 1
            self._tables[index].ranks[slot] = 0
            _note_rank(self._tables[index])
        self.head_bias[:, slot] = 0.0

    def _fill(self, table: LoraTable, slot: int, parts: list[Factors | None]) -> None:
        a = [0 if part is None else part.a.data_ptr() for part in parts]
        b = [0 if part is None else part.b.data_ptr() for part in parts]
        table.a_addresses[slot] = torch.tensor(a, dtype=torch.int64)
        table.b_addresses[slot] = torch.tensor(b, dtype=torch.int64)
        table.ranks[slot] = torch.tensor([0 if part is None else part.rank for part in parts], dtype=torch.int32)
        table.scales[slot] = torch.tensor([0.0 if part is None else part.scale for part in parts])
        _note_rank(table)


def _note_rank(table: LoraTable) -> None:
    if table.ranks.device.type == "cpu":
        table.rank_in_use = int(table.ranks.max())
