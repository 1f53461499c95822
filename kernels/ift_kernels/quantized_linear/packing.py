"""Weights rounded to 8 bits, symmetric, or to 4 with a minimum: a scale for each output and group of inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ift_kernels.quantized_linear.types import GROUP, PANEL, QuantizedWeight


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


def quantize_weight(weight: Tensor, bits: int) -> QuantizedWeight | None:
    """A weight ``[N, K]`` rounded.

    None where N is no multiple of 16, K none of 32, or a value is not finite or beyond float16.

    Eight bits: the largest weight of a group is 127 steps. Four bits: 15 steps from the smallest of a group to the
    largest, so that a group need not lie around 0.
    """
    outputs, inputs = weight.shape
    if outputs % PANEL or inputs % GROUP:
        return None
    groups = weight.detach().float().view(outputs, -1, GROUP)
    low, high = groups.aminmax(dim=-1)
    if not bool((torch.maximum(low.abs(), high.abs()) <= torch.finfo(torch.float16).max).all()):
        return None
    if bits == 8:
        scales, minimums = _half(torch.maximum(low.abs(), high.abs()) / 127), None
        steps = _steps(groups, scales, -127, 127).to(torch.int8)
    else:
        scales, minimums = _half((high - low) / 15), _half(low)
        steps = _steps(groups - minimums[..., None], scales, 0, 15).to(torch.uint8)
    return pack_codes(steps.view(outputs, inputs), scales, minimums, bits)


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


def _half(values: Tensor) -> Tensor:
    """Rounded to what is kept, so that codes are of the kept scale."""
    return values.to(torch.float16).to(torch.float32)


def _steps(groups: Tensor, scales: Tensor, low: int, high: int) -> Tensor:
    inverse = torch.where(scales == 0, 0.0, 1 / scales)[..., None]
    return (groups * inverse).round_().clamp_(low, high)
