"""Codes and scales in the layout that the kernel reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ift_kernels.quantized_linear.types import PANEL, QuantizedWeight


def pack_codes(codes: Tensor, scales: Tensor, minimums: Tensor | None, bits: int) -> QuantizedWeight:
    """Codes ``[N, K]`` (int8 of 8 bits, uint8 of 4), scales and minimums ``[N, K / 32]`` in the kernel's layout.

    N must be a multiple of 16, K of 32.
    """
    outputs, inputs = codes.shape
    panels = codes.view(outputs // PANEL, PANEL, inputs // 4, 4).transpose(1, 2)
    if bits == 4:
        panels = panels[:, 0::2] | panels[:, 1::2] << 4

    def by_panel(values: Tensor) -> Tensor:
        return values.to(torch.float16).view(outputs // PANEL, PANEL, -1).transpose(1, 2).contiguous()

    return QuantizedWeight(
        bits,
        panels.contiguous(),
        by_panel(scales),
        None if minimums is None else by_panel(minimums),
    )


def stack_weights(weights: Sequence[QuantizedWeight]) -> QuantizedWeight | None:
    """Weights of the same inputs as one, the outputs of the first first; None where they are of different kinds."""
    first = weights[0]
    if len(weights) == 1:
        return first
    if any((w.bits, w.minimums is None) != (first.bits, first.minimums is None) for w in weights):
        return None
    return QuantizedWeight(
        first.bits,
        torch.cat([w.panels for w in weights]),
        torch.cat([w.scales for w in weights]),
        None if first.minimums is None else torch.cat([w.minimums for w in weights if w.minimums is not None]),
    )
