"""Decode steps on the CPU: their kernels' launches, recorded once, instead of a pass through Python."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ift_kernels.cpu_simd.recorded import Arena, NotRecordableError, RecordedLaunches, record
from ift_kernels.lora import LoraRows
from ift_kernels.lora_add.cpu import tile_launch, use_tiles
from ift_serve.modeling.decoder.flat_batch import BatchLora, FlatBatch, LayerCache
from ift_serve.modeling.decoder.fused_layers import FusedDecoder

_log = logging.getLogger(__name__)
_LONGEST = 4096
"""Positions of the recorded steps, which attention has memory for; behind more, it takes longer than Python does."""


_MOST_STEPS = 96
"""Records that are kept, the latest used: each holds some hundred kilobytes of arguments."""
_SERVED_FIRST = 4
"""Steps of a kind before it is recorded while others wait: recording takes what running from a record saves in five or
six, and most kinds of steps with guesses come once or twice."""
_MOST_SEEN = 1024


class _Kind(NamedTuple):
    """What a record is of: rows, tiles of attention, linear layers that adapters change, and of their ranks the length
    in bits, by which threads share a low-rank product."""

    rows: int
    tiles: int
    changed: tuple[bool, ...] | None
    rank: int


@dataclass(frozen=True, slots=True)
class _Step:
    """A recorded step, and where it leaves hidden states and logits."""

    launches: RecordedLaunches
    hidden: Tensor
    logits: Tensor


class RecordedSteps:
    """Runs the layers and the head for batches of few tokens, each of which is drawn from or is a guess to be checked.

    What varies is read from buffers at fixed addresses. Each number of rows and tiles, with each set of linear layers
    that the batch's adapters change, is recorded when it first comes, or from ``begin_serving`` on when it has come
    some times. The results are those of the decoder itself, bit for bit. Adapters with more than low-rank factors are
    left to the decoder.
    """

    def __init__(
        self,
        decoder: FusedDecoder,
        layers: list[LayerCache],
        *,
        rows: int,
        hidden_size: int,
        dtype: torch.dtype,
        longest: int,
        padded_rank: int,
    ) -> None:
        """rows: at most so many. longest: positions of a sequence. padded_rank: of the decoder's LoRA tables."""
        self._decoder = decoder
        self._rows = rows
        self._longest = min(longest, _LONGEST)
        width = -(-self._longest // layers[0].keys.shape[3])
        self._hidden = torch.zeros((rows, hidden_size), dtype=dtype)
        integers = torch.zeros((4, rows), dtype=torch.int32)
        self._buffers = FlatBatch(
            input_ids=torch.zeros(rows, dtype=torch.int64),
            positions=integers[0],
            slots=integers[1],
            sequence=integers[3],
            lengths=integers[2],
            longest=self._longest,
            block_tables=torch.zeros((rows, width), dtype=torch.int32),
            segments=torch.full((rows,), 3, dtype=torch.uint8),
            layers=layers,
            tiles=torch.zeros(rows + 1, dtype=torch.int32),
            backend="cpu",
        )
        self._lora = LoraRows(*(torch.zeros(rows, dtype=torch.int32) for _ in range(4)))
        self._tiles = self._lora.launch = tile_launch(self._lora, padded_rank)
        self._arena = Arena()
        self._steps: OrderedDict[_Kind, _Step] = OrderedDict()
        self._fails = False
        self._serves = False
        self._seen: Counter[_Kind] = Counter()

    def begin_serving(self) -> None:
        """From here on somebody waits for each step."""
        self._serves = True

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of the steps that were recorded so far."""
        return tuple(sorted({kind.rows for kind in self._steps}))

    def takes(self, batch: FlatBatch) -> bool:
        """Whether this step can be run from the records."""
        return (
            not self._fails
            and batch.tiles is not None
            and batch.input_ids.shape[0] <= self._rows
            and batch.longest <= self._longest
            and batch.adaptation is None
            and batch.bias is None
            and (batch.lora is None or batch.lora.magnitudes is None)
        )

    def run(self, batch: FlatBatch) -> tuple[Tensor, Tensor]:
        """Hidden states ``[R, d]`` and logits ``[R, V]`` of a batch that :meth:`takes` accepts.

        Both are overwritten by the next run.
        """
        kind = _kind(batch)
        step = self._steps.get(kind)
        if step is None and self._waits(kind):
            return self._unrecorded(batch)
        self._fill(batch)
        if batch.lora is not None:
            self._fill_lora(batch.lora.rows)
        if step is not None:
            self._steps.move_to_end(kind)
            step.launches()
            return step.hidden, step.logits
        try:
            step = self._record(kind, batch.lora)
        except NotRecordableError as error:
            _log.info("decode steps are not recorded: %s", error)
            self._fails = True
            return self._unrecorded(batch)
        self._steps[kind] = step
        if len(self._steps) > _MOST_STEPS:
            gone, _ = self._steps.popitem(last=False)
            self._seen.pop(gone, None)
        return step.hidden, step.logits

    def _waits(self, kind: _Kind) -> bool:
        """Whether this kind has not come often enough to be recorded."""
        if not self._serves:
            return False
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[kind] += 1
        return self._seen[kind] < _SERVED_FIRST

    def _unrecorded(self, batch: FlatBatch) -> tuple[Tensor, Tensor]:
        hidden = self._decoder.forward(batch, None)
        return hidden, self._decoder.logits(hidden)

    def _fill(self, batch: FlatBatch) -> None:
        buffers, rows = self._buffers, batch.input_ids.shape[0]
        assert buffers.tiles is not None and batch.tiles is not None
        self._hidden[:rows] = self._decoder.embed(batch.input_ids)
        buffers.positions[:rows] = batch.positions
        buffers.slots[:rows] = batch.slots
        buffers.lengths[:rows] = batch.lengths
        buffers.sequence[:rows] = batch.sequence
        buffers.tiles[: batch.tiles.shape[0]] = batch.tiles
        sequences, width = batch.block_tables.shape
        buffers.block_tables[:sequences, :width] = batch.block_tables

    def _fill_lora(self, rows: LoraRows) -> None:
        fixed, tiles = self._lora, rows.tile_adapter.shape[0]
        fixed.order[: rows.order.shape[0]] = rows.order
        fixed.tile_adapter[:tiles] = rows.tile_adapter
        fixed.tile_start[:tiles] = rows.tile_start
        fixed.tile_count[:tiles] = rows.tile_count
        use_tiles(self._tiles, tiles)

    def _record(self, kind: _Kind, lora: BatchLora | None) -> _Step:
        """Record a step while computing it."""
        whole, rows = self._buffers, kind.rows
        assert whole.tiles is not None
        batch = replace(
            whole,
            input_ids=whole.input_ids[:rows],
            positions=whole.positions[:rows],
            slots=whole.slots[:rows],
            sequence=whole.sequence[:rows],
            lengths=whole.lengths[:rows],
            block_tables=whole.block_tables[:rows],
            segments=whole.segments[:rows],
            tiles=whole.tiles[: kind.tiles + 1],
            lora=None if lora is None else BatchLora(self._lora, lora.tables, "cpu"),
        )

        def compute() -> tuple[Tensor, Tensor]:
            hidden = self._decoder.run_layers(self._hidden[:rows], batch, None)
            return hidden, self._decoder.logits(hidden)

        (hidden, logits), launches = record(compute, self._arena)
        return _Step(launches, self._arena.borrowed(hidden), self._arena.borrowed(logits))


def _kind(batch: FlatBatch) -> _Kind:
    assert batch.tiles is not None
    rows, tiles = batch.input_ids.shape[0], batch.tiles.shape[0] - 1
    if batch.lora is None:
        return _Kind(rows, tiles, None, 0)
    tables = batch.lora.tables
    rank = max(0 if table is None else table.rank_in_use or table.max_rank for table in tables)
    return _Kind(rows, tiles, tuple(table is not None for table in tables), rank.bit_length())
