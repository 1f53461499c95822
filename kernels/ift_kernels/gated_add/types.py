"""Which rows of a batch go through which gate."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class GateTerms:
    """What a sequence brings to the gates of all L layers: ``offset`` ``[L, r]`` float32 and ``value`` ``[L, d]`` of
    the hidden states' dtype, both contiguous."""

    offset: Tensor
    value: Tensor


@dataclass(slots=True)
class GateGroup:
    """Rows that share the factors of a gate: ``down`` and ``up`` ``[L, r, d]`` contiguous, of the hidden states' dtype.

    rows: ``[n]`` int64, or None where they are all the batch's; sequence: ``[n]`` int64, the place of each row in
    ``terms``, on the same device.
    """

    down: Tensor
    up: Tensor
    rows: Tensor | None
    sequence: Tensor
    terms: list[GateTerms]


@dataclass(slots=True)
class Launch:
    """What the CPU's kernel is started with: its arguments, the worker's address, threads, and memory to keep alive."""

    arguments: NDArray[np.int64]
    worker: int
    threads: int
    kept: tuple[NDArray[np.generic], ...]


@dataclass(slots=True)
class Gates:
    """All groups of a batch; rows that are in none are only added to.

    stacked, launch: what implementations keep between the layers of a batch.
    """

    groups: list[GateGroup]
    stacked: list[tuple[Tensor, Tensor]] | None = field(default=None, init=False, repr=False, compare=False)
    launch: Launch | None = field(default=None, init=False, repr=False, compare=False)
