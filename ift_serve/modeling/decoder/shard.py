"""One process's part of a model that several compute together (Shoeybi et al., Megatron-LM, arXiv 1909.08053)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shard:
    """Which part this process has, and how the parts come together. Every rank makes the same calls in the same order.

    rank: of ``size`` ranks. group: torch's process group, None for all. summed: paths of the linear layers whose inputs
    are divided, so that each rank has a summand of their outputs. divided: paths of those whose outputs are.
    head_columns: outputs of the language head, of which each rank has ``ceil(head_columns / size)``, padded; 0: every
    rank has it whole.
    """

    rank: int
    size: int
    group: Any = None
    summed: frozenset[str] = frozenset()
    divided: frozenset[str] = frozenset()
    head_columns: int = 0

    def sum(self, part: Tensor) -> Tensor:
        """The sum of every rank's ``part``, the same bits on all of them.

        Parts are added in the order of ranks, whatever their shape: a collective sum of more than two ranks adds in an
        order that depends on where in the tensor an entry lies, so a row's last bit would depend on its neighbours.
        """
        parts = self._gathered(part)
        total = parts[0]
        for other in parts[1:]:
            total = total + other
        return total

    def join(self, columns: Tensor) -> Tensor:
        """The head's products ``[R, V]`` of every rank's ``[R, ceil(V / size)]``."""
        if not self.head_columns:
            return columns
        return torch.cat(self._gathered(columns), dim=-1)[..., : self.head_columns]

    def _gathered(self, part: Tensor) -> list[Tensor]:
        import torch.distributed as distributed

        own = part.contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        if own.numel():
            distributed.all_gather(parts, own, group=self.group)
        return parts


class SummedLinear(nn.Module):
    """A linear layer of whose inputs this rank has a part."""

    def __init__(self, inner: nn.Module, shard: Shard) -> None:
        super().__init__()
        self.inner = inner
        self._shard = shard

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: ``[..., in_features / size]`` -> ``[..., out_features]``."""
        return self._shard.sum(self.inner(inputs))


class JoinedHead(nn.Module):
    """A language head of whose outputs this rank has a part."""

    def __init__(self, inner: nn.Module, shard: Shard) -> None:
        super().__init__()
        self.inner = inner
        self._shard = shard

    def forward(self, hidden: Tensor) -> Tensor:
        """``[..., d]`` -> ``[..., V]``."""
        return self._shard.join(self.inner(hidden))
