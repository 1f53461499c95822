"""A follower's part of the adapters that are in slots."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ift_kernels.backend import is_triton
from ift_kernels.lora import LoraRows, group_rows
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.runner.parallel.messages import FactorParts
from ift_serve.engine.runner.parallel.ranks import decoded_factors
from ift_serve.modeling.decoder.adaptable_layers import AdaptableLinear
from ift_serve.modeling.decoder.decoder import Decoder
from ift_serve.modeling.decoder.flat_batch import BatchLora, FlatBatch
from ift_serve.modeling.decoder.model_loader import LoadedModel
from ift_serve.modeling.multi_adapter.lora_tables import AdapterTables
from ift_serve.modeling.multi_adapter.prepared import Factors, PreparedAdapter

_CPU_TILE, _GPU_TILE = 4, 16


class ShardAdapters:
    """Low-rank factors by slot. What looks at whole hidden states is rank 0's, the head's factors included."""

    def __init__(self, decoder: Decoder, loaded: LoadedModel, config: EngineConfig, backend: str, device: str) -> None:
        self._adaptable = decoder.adaptable()
        self._dtype, self._backend, self._device = loaded.dtype, backend, device
        self._tables = AdapterTables(
            self._adaptable,
            AdaptableLinear(("head",), int(loaded.config.hidden_size), (0, int(loaded.config.vocab_size))),
            slots=config.adapter_slots,
            layers=len(loaded.geometry),
            heads=loaded.geometry[0].heads,
            max_rank=config.max_lora_rank,
            device=device,
        )
        self._taken: dict[int, list[Factors | None]] = {}
        self._placed: dict[int, PreparedAdapter] = {}

    def take(self, index: int, parts: list[FactorParts | None]) -> None:
        """The factors of one adaptable linear of the adapter that is placed next."""
        self._taken[index] = [None if own is None else decoded_factors(own, self._dtype, self._device) for own in parts]

    def place(self, slot: int) -> None:
        """Have batches find what was taken in ``slot``."""
        none: list[list[Factors | None]] = [[None] * len(linear.paths) for linear in self._adaptable]
        linears = [self._taken.get(index, empty) for index, empty in enumerate(none)]
        self._taken = {}
        self._placed[slot] = PreparedAdapter(linears)
        self._tables.place(slot, self._placed[slot])

    def clear(self, slot: int) -> None:
        """Free the adapter of a slot."""
        self._tables.clear(slot)
        self._placed.pop(slot, None)

    def extend(self, batch: FlatBatch, adapters: list[int]) -> None:
        """Add to a batch what the adapters of its sequences change in this rank's layers."""
        slots = np.array(adapters, dtype=np.int32)
        if not slots.any():
            return
        linears = self._tables.linears([int(slot) for slot in np.unique(slots) if slot])
        if any(table is not None for table in linears):
            rows = slots[batch.sequence.numpy(force=True)]
            order, tiles = group_rows(
                np.where(rows > 0, rows, -1), _GPU_TILE if is_triton(self._backend) else _CPU_TILE
            )
            grouped = LoraRows(self._put(order), *(self._put(np.ascontiguousarray(part)) for part in tiles))
            batch.lora = BatchLora(grouped, linears, self._backend)

    def _put(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._device)
