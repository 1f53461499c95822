"""A follower's part of the model and of the cache."""

from __future__ import annotations

import torch

from ift_kernels.backend import is_triton
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.runner.batch_builder import BatchBuilder
from ift_serve.engine.runner.kv_cache import KVCache
from ift_serve.engine.runner.parallel.messages import ClearSlot, OpenCache, PlaceAdapter, PlaceLinear, Step
from ift_serve.engine.runner.parallel.process_group import join_group
from ift_serve.engine.runner.parallel.ranks import threads_of_a_rank
from ift_serve.engine.runner.parallel.shard_adapters import ShardAdapters
from ift_serve.engine.runner.serving_check import real_prompts, serve_windows, served_logits
from ift_serve.engine.sequences.step import SequenceStep
from ift_serve.modeling.decoder.cache_scales import CacheScale
from ift_serve.modeling.decoder.decoder import Decoder, make_decoder
from ift_serve.modeling.decoder.model_loader import LoadedModel, UnsupportedModelError, load_model
from ift_serve.modeling.decoder.sharding import take_shard


class ShardRunner:
    """Computes what rank 0 tells it to, operation by operation as rank 0 itself does, so that collectives meet."""

    _loaded: LoadedModel
    _decoder: Decoder
    _cache: KVCache
    _build_batch: BatchBuilder
    _tables: ShardAdapters

    def __init__(self, config: EngineConfig, device: str, rank: int, size: int) -> None:
        self._config = config
        self._device = device
        self._rank, self._size = rank, size
        torch.set_num_threads(threads_of_a_rank(config, device))
        torch.manual_seed(config.seed)
        if device == "cuda":
            torch.cuda.set_device(rank)

    def free_memory(self) -> int:
        """Bytes that this rank's GPU has left; 0 on the CPU, whose memory all ranks share."""
        return 0 if self._device == "cpu" else int(torch.cuda.mem_get_info()[0])

    def join(self, directory: str) -> None:
        """Meet the other ranks."""
        join_group(directory, self._rank, self._size, self._device)

    def load(self, windows: list[int] | None) -> None:
        """Read the model and keep this rank's part. Raises ValueError."""
        config = self._config
        try:
            whole = load_model(
                config.model,
                name=config.model_name,
                dtype=config.dtype,
                device=self._device,
                context_length=config.context_length,
                on_host=True,
            )
            if windows is not None:
                serve_windows(whole, tuple(windows))
            self._loaded = take_shard(whole, self._rank, self._size)
        except UnsupportedModelError as error:
            raise ValueError(str(error)) from error
        self._loaded.model.to(self._device)

    @torch.inference_mode()
    def pack(self, backend: str, *, fuses: bool) -> None:
        """Make the decoder."""
        self._decoder = make_decoder(self._loaded, backend, fuse=fuses)

    @torch.inference_mode()
    def compare(self, backend: str, block_size: int) -> None:
        """Compute this rank's part of what rank 0 compares."""
        served_logits(self._decoder, self._loaded, real_prompts(self._loaded), backend, block_size)

    def open_cache(self, message: OpenCache) -> None:
        """Take the memory of keys and values of this rank's heads."""
        geometry, size = self._loaded.geometry, message.block_size
        scales = None if message.scales is None else [CacheScale(*scale) for scale in message.scales]
        dtype = getattr(torch, message.dtype)
        self._cache = KVCache(geometry, message.blocks, size, dtype, self._device, scales)
        self._tables = ShardAdapters(self._decoder, self._loaded, self._config, message.backend, self._device)
        split = is_triton(message.backend)
        self._build_batch = BatchBuilder(self._cache.layers, geometry, size, message.backend, split=split)

    @torch.inference_mode()
    def step(self, message: Step) -> None:
        """One batch: its layers, and the head's columns of the rows that are wanted."""
        if message.block_copies:
            self._cache.copy_blocks(message.block_copies)
        steps = [
            SequenceStep(number, own.token_ids, own.start, own.block_table, adapter=own.adapter)
            for number, own in enumerate(message.sequences)
        ]
        flat = self._build_batch(steps)
        self._tables.extend(flat, [own.adapter for own in message.sequences])
        wanted = message.wanted
        rows = None if wanted is None else torch.tensor(wanted, dtype=torch.long, device=flat.input_ids.device)
        hidden = self._decoder.forward(flat, rows)
        for first in range(0, hidden.shape[0], message.chunk):
            self._decoder.logits(hidden[first : first + message.chunk])

    def adapt(self, message: PlaceLinear | PlaceAdapter | ClearSlot) -> None:
        """Take in or free this rank's part of an adapter."""
        match message:
            case PlaceLinear(index=index, parts=parts):
                self._tables.take(index, parts)
            case PlaceAdapter(slot=slot):
                self._tables.place(slot)
            case ClearSlot(slot=slot):
                self._tables.clear(slot)
