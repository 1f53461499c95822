"""A weight of 8 or 4 bits in the layout that the kernel reads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PANEL = 16
"""Outputs that a vector holds."""

GROUP = 32
"""Inputs that share a scale."""

ZERO_CODE = 8
"""The code of weight 0 among four-bit ones without minimums."""

INPUT_LIMIT = 127
"""Largest rounded input: two products of a code and an input fit 16 bits together."""


@dataclass(slots=True)
class QuantizedLaunch:
    """What the CPU kernel keeps of a weight between calls with inputs of one dtype.

    arguments: int64, of which a call writes the first. multiply: address of the compiled worker. columns: outputs.
    scratch: rounded inputs of few rows, for each of ``threads``.
    """

    dtype: torch.dtype
    arguments: NDArray[np.int64]
    multiply: int
    columns: int
    threads: int
    scratch: Tensor


@dataclass(slots=True)
class QuantizedWeight:
    """``[N, K]`` in codes of ``bits`` bits, with a float16 scale for each output and group of inputs.

    A weight of 8 bits is ``scale code``; one of 4 bits is ``scale code + minimum``, or ``scale (code - 8)`` where there
    are no minimums.

    bits: 8, codes signed, or 4, codes unsigned.
    panels: of 8 bits int8 ``[N / 16, K / 4, 16, 4]``; of 4 bits uint8 ``[N / 16, K / 8, 16, 4]``, a byte of which holds
    the code of one input in its lower half and that of the input four further in its upper half.
    scales, minimums: ``[N / 16, K / 32, 16]`` float16.
    launch: what the kernel keeps between calls.
    """

    bits: int
    panels: Tensor
    scales: Tensor
    minimums: Tensor | None = None
    launch: QuantizedLaunch | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int]:
        """N and K."""
        return self.panels.shape[0] * PANEL, self.panels.shape[1] * 4 * 8 // self.bits

    @property
    def nbytes(self) -> int:
        """Bytes that a pass over the weight reads."""
        parts = [self.panels, self.scales, *([] if self.minimums is None else [self.minimums])]
        return sum(part.numel() * part.itemsize for part in parts)

    def rows(self, indices: Tensor) -> Tensor:
        """Rows of the weight by their numbers ``[R]`` -> ``[R, K]`` float32."""
        panel, lane = indices // PANEL, indices % PANEL
        packed = self.panels[panel, :, lane]
        if self.bits == 4:
            packed = torch.stack((packed & 15, packed >> 4), 2)
        codes = packed.reshape(len(indices), -1, GROUP).to(torch.float32)
        scales = self.scales[panel, :, lane].to(torch.float32)[..., None]
        if self.minimums is None:
            values = (codes - (ZERO_CODE if self.bits == 4 else 0)) * scales
        else:
            values = codes * scales + self.minimums[panel, :, lane].to(torch.float32)[..., None]
        return values.reshape(len(indices), -1)

    def dense(self) -> Tensor:
        """``[N, K]`` float32, in new memory."""
        return self.rows(torch.arange(self.shape[0]))
