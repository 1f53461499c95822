"""Decode steps as CUDA graphs: one launch instead of some hundreds, at fixed addresses."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Protocol

import torch
from torch import Tensor

from ift_kernels.lora import LoraRows, LoraTable
from ift_serve.modeling.decoder.decoder import Decoder
from ift_serve.modeling.decoder.flat_batch import BatchBias, BatchLora, FlatBatch, LayerCache

_log = logging.getLogger(__name__)

Capture = Callable[[Callable[[], tuple[Tensor, Tensor]]], "Replay"]


class Replay(Protocol):
    """Runs what was captured; returns the same tensors with new contents."""

    def __call__(self) -> tuple[Tensor, Tensor]: ...


class CudaCapture:
    """Captures into CUDA graphs that share one memory pool: only one of them runs at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]

    def __call__(self, compute: Callable[[], tuple[Tensor, Tensor]]) -> Replay:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = compute()

        def replay() -> tuple[Tensor, Tensor]:
            graph.replay()
            return outputs

        return replay


def eager_capture(compute: Callable[[], tuple[Tensor, Tensor]]) -> Replay:
    """No graph: computes each time. For debugging, and for tests of everything but the capture."""
    return compute


def bucket_sizes(largest: int) -> list[int]:
    """Batch sizes that get a graph: few, and never much larger than the batch. Ends with ``largest``."""
    sizes = [1, 2, 4, *range(8, min(largest, 64), 8), *range(64, largest, 32)]
    return [size for size in sizes if size < largest] + [largest]


class DecodeGraphs:
    """Replays the forward pass and the head for batches of one token a sequence.

    Everything that varies is read from buffers at fixed addresses, padded to the bucket: a padding row has length 0
    and slot -1, so it neither reads nor writes the cache. Variants have the attention bias, low-rank changes (of every
    linear layer, since which ones have any varies), both or neither; batches with other components are not taken.
    """

    def __init__(
        self,
        decoder: Decoder,
        layers: list[LayerCache],
        *,
        sizes: list[int],
        table_width: int,
        context_length: int,
        backend: str,
        capture: Capture,
        tables: list[LoraTable],
        head_bias: Tensor,
    ) -> None:
        self.sizes = sizes
        self._decoder = decoder
        self._capture = capture
        self._replays: dict[tuple[int, bool, bool], Replay] = {}
        self._tables: list[LoraTable | None] = list(tables)
        self._head_bias = head_bias
        device, rows = layers[0].keys.device, sizes[-1]
        integers = torch.zeros((10, rows), dtype=torch.int32, device=device)
        integers[1], integers[3] = -1, torch.arange(rows, device=device)
        self._integers = integers
        self._buffers = FlatBatch(
            input_ids=integers[5],
            positions=integers[0],
            slots=integers[1],
            sequence=integers[3],
            lengths=integers[2],
            longest=context_length,
            block_tables=torch.zeros((rows, table_width), dtype=torch.int32, device=device),
            segments=torch.full((rows,), 3, dtype=torch.uint8, device=device),
            layers=layers,
            backend=backend,
        )
        self._mask = torch.zeros((rows, -(-context_length // 16) * 16), dtype=torch.uint8, device=device)
        self._strength = torch.zeros(rows, dtype=torch.float32, device=device)

    def takes(self, batch: FlatBatch) -> bool:
        """Whether this step can be replayed."""
        return (
            batch.prefill is None
            and batch.adaptation is None
            and (batch.lora is None or batch.lora.magnitudes is None)
            and batch.input_ids.shape[0] == batch.block_tables.shape[0] <= self.sizes[-1]
        )

    def run(self, batch: FlatBatch) -> tuple[Tensor, Tensor]:
        """Hidden states ``[R, d]`` and logits ``[R, V]`` of a batch that :meth:`takes` accepts.

        Both are overwritten by the next run.
        """
        rows = batch.input_ids.shape[0]
        size = self.sizes[bisect_left(self.sizes, rows)]
        self._fill(batch, rows, size)
        hidden, logits = self._replay(size, batch.bias is not None, batch.lora is not None)()
        return hidden[:rows], logits[:rows]

    def capture_all(self) -> None:
        """Capture every bucket and variant, so that no request waits for it; the largest first, whose memory the
        others share."""
        for size in reversed(self.sizes):
            for bias, lora in product((False, True), (False, True)):
                self._replay(size, bias, lora)

    def _replay(self, size: int, bias: bool, lora: bool) -> Replay:
        key = (size, bias, lora)
        if key not in self._replays:
            self._replays[key] = self._record(size, bias, lora)
        return self._replays[key]

    def _fill(self, batch: FlatBatch, rows: int, size: int) -> None:
        fields = self._integers
        fields[1, rows:size] = -1
        fields[2, rows:size] = 0
        fields[0, rows:size] = 0
        for index, source in ((0, batch.positions), (1, batch.slots), (2, batch.lengths), (5, batch.input_ids)):
            fields[index, :rows].copy_(source)
        self._buffers.block_tables[:rows, : batch.block_tables.shape[1]].copy_(batch.block_tables)
        if batch.bias is not None:
            bias = batch.bias
            fields[4, :rows].copy_(bias.adapter)
            fields[4, rows:size] = 0
            self._strength[:rows].copy_(bias.strength)
            self._mask[:rows].zero_()
            self._mask[:rows, : bias.mask.shape[1]].copy_(bias.mask)
        if batch.lora is not None:
            lora = batch.lora.rows
            fields[6:10, :size] = 0
            for index, part in enumerate((lora.order, lora.tile_adapter, lora.tile_start, lora.tile_count)):
                fields[6 + index, : part.shape[0]].copy_(part)

    def _record(self, size: int, bias: bool, lora: bool) -> Replay:
        whole = self._buffers
        batch = replace(
            whole,
            **{
                name: getattr(whole, name)[:size]
                for name in (
                    "input_ids",
                    "positions",
                    "slots",
                    "sequence",
                    "lengths",
                    "block_tables",
                    "segments",
                )
            },
            bias=BatchBias(self._mask[:size], self._head_bias, self._integers[4, :size], self._strength[:size])
            if bias
            else None,
            lora=BatchLora(LoraRows(*self._integers[6:10, :size]), self._tables, whole.backend) if lora else None,
        )

        def compute() -> tuple[Tensor, Tensor]:
            hidden = self._decoder.forward(batch, None)
            return hidden, self._decoder.logits(hidden)

        _log.debug("capturing decode of %d rows, bias %s, lora %s", size, bias, lora)
        return self._capture(compute)
