"""Between the statistics of a step's rows and their draw: the temperature of each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ift_kernels.row_statistics import RowStatistics
from ift_serve.engine.protocol.sampling import AdaptiveTemperature, TemperatureRule
from ift_serve.engine.sampling.temperature_rules import entropy_temperature
from ift_serve.engine.sequences.step import DrawingRow

Rows = Sequence[DrawingRow | None]
"""One entry a row: who draws from it, None where a target is scored."""
Heads = Callable[[RowStatistics, Tensor, Tensor, Rows], Tensor]
"""Predicts from statistics, hidden states ``[R, d]`` and T_0 ``[R]`` the temperatures of the rows that ask for it,
within their bounds; other rows keep T_0."""


def _rule(row: DrawingRow | None) -> AdaptiveTemperature | None:
    if row is None or row.sampling is None or row.sampling.temperature == 0.0:
        return None
    return row.sampling.params.adaptive


class Temperatures:
    """Chooses each row's temperature. Where no row asks for more than its own, that is all it costs to pack them."""

    def __init__(self, heads: Heads | None = None, device: str = "cpu") -> None:
        self._heads = heads
        self._device = device

    def __call__(self, statistics: RowStatistics, hidden: Tensor | None, rows: Rows) -> Tensor:
        """``[R]`` float32 on the device. hidden: ``[R, d]``, what the rows' logits were computed from.

        Raises ValueError for a row that wants a head where none can be.
        """
        packed = np.zeros(len(rows), dtype=np.float32)
        rules = dict[int, AdaptiveTemperature]()
        for index, row in enumerate(rows):
            if row is not None and row.sampling is not None:
                packed[index] = row.sampling.temperature
                if (rule := _rule(row)) is not None:
                    rules[index] = rule
                    packed[index] = row.sampling.temperature * rule.scale
        chosen = self._put(packed)
        by_entropy = {index: rule for index, rule in rules.items() if rule.rule is TemperatureRule.ENTROPY}
        if by_entropy:
            chosen = self._by_entropy(chosen, statistics, by_entropy)
        if len(by_entropy) < len(rules):
            if self._heads is None or hidden is None:
                raise ValueError("adaptive: no adapter's head is at hand")
            chosen = self._heads(statistics, hidden, chosen, rows)
        if any(rule.greedy_below for rule in rules.values()):
            bounds = np.zeros(len(rows), dtype=np.float32)
            bounds[list(rules)] = [rule.greedy_below for rule in rules.values()]
            chosen = torch.where(chosen < self._put(bounds), 0.0, chosen)
        return chosen

    def _by_entropy(self, initial: Tensor, statistics: RowStatistics, rules: dict[int, AdaptiveTemperature]) -> Tensor:
        places = self._put(np.array(list(rules), dtype=np.int64))
        fields = [(rule.base, rule.theta, rule.min, rule.max) for rule in rules.values()]
        base, theta, lowest, highest = self._put(np.array(fields, dtype=np.float32).T.copy())
        found = entropy_temperature(initial[places], statistics.entropy[places], base, theta)
        return initial.index_copy(0, places, torch.minimum(torch.maximum(found, lowest), highest))

    def _put(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._device == "cpu" else tensor.pin_memory().to(self._device, non_blocking=True)
