"""The temperatures that the heads of a step's adapters predict, rows of any adapters and of none side by side.

A head chooses for a whole answer, from the pooled instruction, or for each token; an adapter may have both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ift_kernels.row_statistics import RowStatistics
from ift_kernels.temperature_heads import HeadRows, temperature_heads
from ift_serve.engine.adapters.prompt_states import PromptStates
from ift_serve.engine.protocol.sampling import TemperatureRule
from ift_serve.engine.sequences.step import DrawingRow
from ift_serve.modeling.multi_adapter.prepared import PreparedAdapter
from ift_serve.modeling.multi_adapter.temperature_table import TemperatureTable


class PredictedTemperatures:
    """Asks the head of each row's adapter where the row wants it; ``placed``: the adapters by slot."""

    def __init__(
        self, table: TemperatureTable, placed: dict[int, PreparedAdapter], states: PromptStates, backend: str
    ) -> None:
        self._table = table.table
        self._placed = placed
        self._states = states
        self._backend = backend

    def __call__(
        self, statistics: RowStatistics, hidden: Tensor, initial: Tensor, rows: Sequence[DrawingRow | None]
    ) -> Tensor:
        """``[R]`` float32: ``initial`` for rows that want no head. hidden: ``[R, d]``."""
        slots = np.zeros(len(rows), dtype=np.int32)
        instructions = np.zeros(len(rows), dtype=np.int64)
        bounds = np.zeros((2, len(rows)), dtype=np.float32)
        factors = np.ones(len(rows), dtype=np.float32)
        kept = list[Tensor]()  # until the launch has their addresses
        for index, row in enumerate(rows):
            adaptive = None if row is None or row.sampling is None else row.sampling.params.adaptive
            if row is None or adaptive is None or adaptive.rule is not TemperatureRule.HEAD or not row.adapter:
                continue
            slots[index], bounds[:, index] = row.adapter, (adaptive.min, adaptive.max)
            state = self._states.of(self._placed[row.adapter], row.prompt)
            if state is None:
                continue
            factors[index] = state.initial_temperature
            if state.temperature is not None:
                kept.append(state.temperature)
                instructions[index] = state.temperature.data_ptr()
        if (factors != 1.0).any():
            initial = initial * self._put(factors, hidden.device)
        of_rows = HeadRows(*(self._put(part, hidden.device) for part in (slots, instructions, bounds[0], bounds[1])))
        return temperature_heads(hidden, statistics, initial, self._table, of_rows, self._backend)

    def _put(self, array: np.ndarray, device: torch.device) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
