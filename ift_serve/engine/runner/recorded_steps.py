"""Decode steps on the CPU: their kernels' launches, recorded once, instead of a pass through Python."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ift_kernels.cpu_simd.recorded import Arena, NotRecordableError, RecordedLaunches, record
from ift_serve.modeling.decoder.flat_batch import FlatBatch, LayerCache
from ift_serve.modeling.decoder.fused_layers import FusedDecoder

_log = logging.getLogger(__name__)
_LONGEST = 4096
"""Positions of the recorded steps, which attention has memory for; behind more, it takes longer than Python does."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A recorded step, and where it leaves hidden states and logits."""

    launches: RecordedLaunches
    hidden: Tensor
    logits: Tensor


class RecordedSteps:
    """Runs the layers and the head for batches of one token a sequence that no adapter changes.

    What varies is read from buffers at fixed addresses. Each number of rows is recorded when it first comes. The
    results are those of the decoder itself, bit for bit.
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
    ) -> None:
        """rows: at most so many. longest: positions of a sequence."""
        self._decoder = decoder
        self._rows = rows
        self._longest = min(longest, _LONGEST)
        width = -(-self._longest // layers[0].keys.shape[3])
        self._hidden = torch.zeros((rows, hidden_size), dtype=dtype)
        integers = torch.zeros((3, rows), dtype=torch.int32)
        self._buffers = FlatBatch(
            input_ids=torch.zeros(rows, dtype=torch.int64),
            positions=integers[0],
            slots=integers[1],
            sequence=torch.arange(rows, dtype=torch.int32),
            lengths=integers[2],
            longest=self._longest,
            block_tables=torch.zeros((rows, width), dtype=torch.int32),
            segments=torch.full((rows,), 3, dtype=torch.uint8),
            layers=layers,
            backend="cpu",
        )
        self._arena = Arena()
        self._steps: dict[int, _Step] = {}
        self._fails = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of the steps that were recorded so far."""
        return tuple(sorted(self._steps))

    def takes(self, batch: FlatBatch) -> bool:
        """Whether this step can be run from the records."""
        return (
            not self._fails
            and batch.input_ids.shape[0] == batch.block_tables.shape[0] <= self._rows
            and batch.longest <= self._longest
            and batch.adaptation is None
            and batch.lora is None
            and batch.bias is None
        )

    def run(self, batch: FlatBatch) -> tuple[Tensor, Tensor]:
        """Hidden states ``[R, d]`` and logits ``[R, V]`` of a batch that :meth:`takes` accepts.

        Both are overwritten by the next run.
        """
        rows, buffers = batch.input_ids.shape[0], self._buffers
        self._hidden[:rows] = self._decoder.embed(batch.input_ids)
        buffers.positions[:rows] = batch.positions
        buffers.slots[:rows] = batch.slots
        buffers.lengths[:rows] = batch.lengths
        buffers.block_tables[:rows, : batch.block_tables.shape[1]] = batch.block_tables
        step = self._steps.get(rows)
        if step is not None:
            step.launches()
            return step.hidden, step.logits
        try:
            step = self._steps[rows] = self._record(rows)
        except NotRecordableError as error:
            _log.info("decode steps are not recorded: %s", error)
            self._fails = True
            hidden = self._decoder.forward(batch, None)
            return hidden, self._decoder.logits(hidden)
        return step.hidden, step.logits

    def _record(self, rows: int) -> _Step:
        """Record a step while computing it."""
        whole = self._buffers
        batch = replace(
            whole,
            input_ids=whole.input_ids[:rows],
            positions=whole.positions[:rows],
            slots=whole.slots[:rows],
            sequence=whole.sequence[:rows],
            lengths=whole.lengths[:rows],
            block_tables=whole.block_tables[:rows],
            segments=whole.segments[:rows],
        )

        def compute() -> tuple[Tensor, Tensor]:
            hidden = self._decoder.run_layers(self._hidden[:rows], batch, None)
            return hidden, self._decoder.logits(hidden)

        (hidden, logits), launches = record(compute, self._arena)
        return _Step(launches, self._arena.borrowed(hidden), self._arena.borrowed(logits))
