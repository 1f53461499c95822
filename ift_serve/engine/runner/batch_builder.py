"""Lays the tokens of a step's sequences side by side, as the model takes them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ift_kernels.backend import INVARIANT
from ift_kernels.paged_prefill.plan import prefill_plan
from ift_serve.engine.sequences.step import SequenceStep
from ift_serve.modeling.decoder.flat_batch import FlatBatch, LayerCache, LayerGeometry, PrefillPart

_TILE_ROWS = 4


class BatchBuilder:
    """Makes a :class:`FlatBatch` on the device of the cache.

    With ``split`` prompt chunks get attention launches of their own, which is how the Triton kernels want it. With an
    invariant backend single tokens are chunks too: one kernel computes a token whatever else its step has.
    """

    def __init__(
        self, layers: list[LayerCache], geometry: list[LayerGeometry], block_size: int, backend: str, *, split: bool
    ) -> None:
        self._layers = layers
        self._shapes = {(g.heads, g.kv_heads, g.width) for g in geometry}
        self.block_size = block_size
        self._backend = backend
        self._split = split
        self._all_chunks = backend == INVARIANT
        self._device = layers[0].keys.device

    def __call__(self, sequences: list[SequenceStep]) -> FlatBatch:
        """The batch, without anything that adapters add."""
        size = self.block_size
        counts = [len(s.token_ids) for s in sequences]
        total = sum(counts)
        longest = max(s.start + n for s, n in zip(sequences, counts, strict=True))
        tables = np.zeros((len(sequences), -(-longest // size)), dtype=np.int32)
        positions = np.empty(total, dtype=np.int32)
        owner = np.empty(total, dtype=np.int32)
        ids = np.empty(total, dtype=np.int64)
        segments = np.zeros(total, dtype=np.uint8)
        first = 0
        for index, (sequence, count) in enumerate(zip(sequences, counts, strict=True)):
            end = sequence.start + count
            used = -(-end // size)
            tables[index, :used] = sequence.block_table[:used]
            if count == 1:
                positions[first] = sequence.start
                owner[first] = index
                ids[first] = sequence.token_ids[0]
            else:
                positions[first : first + count] = np.arange(sequence.start, end, dtype=np.int32)
                owner[first : first + count] = index
                ids[first : first + count] = sequence.token_ids
            if sequence.segment_ids:
                segments[first : first + count] = np.frombuffer(sequence.segment_ids, dtype=np.uint8)
            first += count
        slots = tables[owner, positions // size] * size + positions % size
        return FlatBatch(
            input_ids=self._put(ids),
            positions=self._put(positions),
            slots=self._put(slots),
            sequence=self._put(owner),
            lengths=self._put(positions + 1),
            longest=longest,
            block_tables=self._put(tables),
            segments=self._put(segments),
            layers=self._layers,
            tiles=None if self._split else _tiles(counts),
            prefill=self._prefill(sequences, counts) if self._split else None,
            backend=self._backend,
        )

    def _put(self, array: NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _prefill(self, sequences: list[SequenceStep], counts: list[int]) -> PrefillPart | None:
        """The chunks, which come after all sequences of one token."""
        first = next((index for index, count in enumerate(counts) if count > 1 or self._all_chunks), len(counts))
        if first == len(counts):
            return None
        chunks = counts[first:]
        bounds = np.cumsum([0, *chunks], dtype=np.int32)
        lengths = np.array([s.start for s in sequences[first:]], dtype=np.int32) + np.array(chunks, dtype=np.int32)
        plans = {shape: prefill_plan(chunks, *shape, self._device) for shape in self._shapes}
        return PrefillPart(first, sum(counts[:first]), self._put(bounds), self._put(lengths), plans)


def _tiles(counts: list[int]) -> Tensor:
    """Bounds of groups of up to four neighbouring rows of one sequence."""
    bounds, first = [0], 0
    for count in counts:
        bounds += range(first + _TILE_ROWS, first + count, _TILE_ROWS)
        first += count
        bounds.append(first)
    return torch.tensor(bounds, dtype=torch.int32)
