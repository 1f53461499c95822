"""A weight in the layout that the kernel reads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PANEL = 16
"""Outputs that a vector holds."""


@dataclass(slots=True)
class PackedWeight:
    """``[N, K]`` as ``panels`` ``[N / 16, K / 2, 16, 2]`` bf16: a panel is 16 outputs, in it two inputs of each side by
    side, so that a register of pairs widens into two vectors without a shuffle.

    launch: what the kernel keeps between calls: arguments, the worker's address, outputs, threads.
    """

    panels: Tensor
    launch: tuple[NDArray[np.int64], int, int, int] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int]:
        """N and K."""
        return self.panels.shape[0] * PANEL, self.panels.shape[1] * 2

    def dense(self) -> Tensor:
        """``[N, K]`` float32, in new memory."""
        return self.panels.permute(0, 2, 1, 3).reshape(self.shape).to(torch.float32)
