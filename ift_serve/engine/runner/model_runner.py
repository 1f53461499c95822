"""Runs the model on one step's batch: flattens it, computes, samples."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ift_kernels.backend import INVARIANT, is_triton
from ift_serve.engine.adapters.tensors import DeviceAdapterTensors
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.engine.protocol.progress import Progress
from ift_serve.engine.runner.batch_builder import BatchBuilder
from ift_serve.engine.runner.compile_monitor import CompileMonitor, report_compilations
from ift_serve.engine.runner.cuda_graphs import CudaCapture, DecodeGraphs, bucket_sizes, eager_capture
from ift_serve.engine.runner.independent_rows import has_independent_rows
from ift_serve.engine.runner.kept_checks import CheckOutcome, KeptChecks
from ift_serve.engine.runner.kv_cache import KVCache, bytes_per_block
from ift_serve.engine.runner.parallel.ranks import Ranks, shard_step, threads_of_a_rank
from ift_serve.engine.runner.parallel.start import sharded_decoder
from ift_serve.engine.runner.placement import (
    block_count,
    choose_backend,
    choose_cache_dtype,
    choose_device,
    free_memory,
    warn_of_slow_dtype,
)
from ift_serve.engine.runner.serving_check import ServingCheck, serve_windows
from ift_serve.engine.runner.step_profiler import StepProfiler
from ift_serve.engine.runner.warm_up import warm_up_batches
from ift_serve.engine.sampling.model_defaults import sampling_defaults
from ift_serve.engine.sampling.sampler import Sampler, sampled_tokens, scored_tokens
from ift_serve.engine.sampling.temperatures import Rows, Temperatures
from ift_serve.engine.sequences.step import (
    ComputeLostError,
    DraftedRow,
    DrawingRow,
    SampledToken,
    ScoredTokens,
    SequenceStep,
    StepBatch,
    StepResult,
)
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.decoder.cache_scales import cache_scales
from ift_serve.modeling.decoder.decoder import Decoder, make_decoder
from ift_serve.modeling.decoder.fused_layers import FusedDecoder
from ift_serve.modeling.decoder.model_loader import LoadedModel, load_model
from ift_serve.system.heap import trim_heap

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from ift_serve.engine.runner.recorded_steps import RecordedSteps

_LOGIT_ROWS = {"cpu": 64, "cuda": 512}
"""Rows of logits computed at a time: bounds memory to so many vocabularies when long texts are scored."""


class ModelRunner:
    """Owns the model and the cache memory. ``execute`` is the only way to compute."""

    def __init__(
        self,
        config: EngineConfig,
        on_stage: Callable[[str], None] = lambda name: None,
        *,
        keeps_checks: bool = False,
        on_lost: Callable[[str], None] | None = None,
    ) -> None:
        """``on_stage`` is told what begins. ``keeps_checks``: whether a model that was compared with transformers at an
        earlier start is not compared again. ``on_lost`` is called, in any thread, when a rank of several is lost and no
        step can be computed any more. Raises ValueError, UnsupportedModelError and OSError, for the operator.
        """
        self.progress = Progress()
        torch.manual_seed(config.seed)
        device = choose_device(config)
        backend = choose_backend(config, device)
        report_compilations(lambda: self.progress, triton=is_triton(backend))
        warn_of_slow_dtype(config, device)
        torch.set_num_threads(threads_of_a_rank(config, device))
        self._ranks = Ranks(config, device) if config.tensor_parallel > 1 else None
        self._on_lost = on_lost
        self._profiler = StepProfiler(config.profile, config.profile_steps, gpu=device == "cuda")
        on_stage("loading weights")
        model = load_model(
            config.model,
            name=config.model_name,
            dtype=config.dtype,
            weights=config.weights,
            device=device,
            context_length=config.context_length,
            on_host=self._ranks is not None,
        )
        dtype = choose_cache_dtype(config, backend, model.dtype)
        # A GPU's tile of keys lies within one block of 64, which halves the registers of the decode kernel.
        self.block_size = config.block_size or (16 if device == "cpu" else 64)
        metadata = BaseMetadata.of_model(model)
        part = model
        kept = (
            KeptChecks(model, backend, self.block_size, config.weights, config.tensor_parallel)
            if keeps_checks
            else None
        )
        free = free_memory(device)
        scales = cache_scales(model) if dtype == torch.float8_e4m3fn else None
        if self._ranks is None:
            self._decoder = checked_decoder(model, backend, self.block_size, on_stage, kept)
        else:
            part, self._decoder = sharded_decoder(model, self._ranks, backend, self.block_size, device, on_stage, kept)
            free = self._ranks.free_memory(free_memory(device))
        self.total_blocks = block_count(config, self.block_size, model, device, dtype, free)
        self._cache = KVCache(part.geometry, self.total_blocks, self.block_size, dtype, device, scales)
        if self._ranks is not None:
            self._ranks.open_cache(self.total_blocks, self.block_size, dtype, backend, scales)
        split = is_triton(backend)
        self._build_batch = BatchBuilder(self._cache.layers, part.geometry, self.block_size, backend, split=split)
        self.compile_monitor = CompileMonitor()
        self.adapters = DeviceAdapterTensors(
            model,
            metadata,
            self._decoder,
            slots=config.adapter_slots,
            max_rank=config.max_lora_rank,
            backend=backend,
            device=device,
            trusted_keys=None if config.trusted_keys is None else Path(config.trusted_keys),
            shard=part.shard,
            others=self._ranks,
            invariant=config.batch_invariant,
        )
        self.has_independent_rows = (
            self._ranks is None
            and backend == "cpu"
            and has_independent_rows(
                self._decoder,
                self._build_batch,
                int(model.config.vocab_size),
                min(model.context_length, self.total_blocks * self.block_size),
            )
        )
        self._sampler = Sampler(Temperatures(self.adapters.temperatures, device), device, backend)
        if config.batch_invariant:
            self._check_invariant(backend, model.architecture, config.weights)
        # Collectives in captured graphs have not been tried; invariant batches have plans that are made anew each step.
        graphs = split and self._ranks is None and not config.batch_invariant
        self._graphs = self._make_graphs(config, model, backend, device) if graphs else None
        self._recorded = self._recorded_steps(config, model, backend) if self._ranks is None else None
        self.description = ModelDescription(
            name=model.name,
            path=model.path,
            architecture=model.architecture,
            fingerprint=model.fingerprint,
            context_length=min(model.context_length, self.total_blocks * self.block_size),
            vocabulary_size=int(model.config.vocab_size),
            hidden_size=int(model.config.hidden_size),
            layers=len(model.geometry),
            parameters=model.parameters,
            dtype=str(model.dtype).removeprefix("torch."),
            device=device,
            weights=model.weights,
            eos_ids=model.eos_ids,
            block_size=self.block_size,
            total_blocks=self.total_blocks,
            max_batch_tokens=config.max_batch_tokens,
            max_sequences=config.max_sequences,
            attention_backend=f"{self._decoder.name}/{backend}",
            features=["generate", "score", "statistics", "adapters", "adaptive_temperature"]
            + (["prefix_caching"] if config.prefix_caching else [])
            + (["fp8_cache"] if scales else [])
            + (["tensor_parallel"] if self._ranks else [])
            + (["batch_invariant"] if config.batch_invariant else []),
            cache_bytes=self.total_blocks * bytes_per_block(model.geometry, self.block_size, dtype, device),
            followers=[] if self._ranks is None else self._ranks.pids,
            sampling_defaults=sampling_defaults(model.generation, model.eos_ids, int(model.config.vocab_size)),
        )
        on_stage("warming up")
        self._warm_up()
        if self._ranks is not None:
            self._ranks.watch(self._lose)
        del model, part
        trim_heap()  # of the weights as they were loaded

    def _check_invariant(self, backend: str, architecture: str, weights: str) -> None:
        """Raises ValueError where an answer could depend on the batch."""
        fused, alone = self._decoder.name == "fused", self._ranks is None
        on_cpu = backend == "cpu" and self._decoder.has_packed_products
        if not (backend == INVARIANT and fused) and not (on_cpu and (self.has_independent_rows or not alone)):
            raise ValueError(
                f"batch_invariant: {architecture} is computed with plain products, whose last bits depend on how many "
                "rows there are; serve a Llama-like model, or without it"
            )
        if backend == INVARIANT and weights != "auto":
            raise ValueError(
                f"batch_invariant: products of {weights} weights on a GPU depend on the batch; choose auto"
            )
        if backend == "cpu":
            _log.info("batch_invariant: on this processor answers do not depend on the batch anyway")

    def _make_graphs(self, config: EngineConfig, model: LoadedModel, backend: str, device: str) -> DecodeGraphs:
        length = min(model.context_length, self.total_blocks * self.block_size)
        return DecodeGraphs(
            self._decoder,
            self._cache.layers,
            sizes=bucket_sizes(config.max_sequences),
            table_width=-(-length // self.block_size),
            context_length=length,
            backend=backend,
            capture=CudaCapture() if device == "cuda" and config.cuda_graphs else eager_capture,
            tables=self.adapters.tables.all_linears,
            head_bias=self.adapters.tables.head_bias,
        )

    def _recorded_steps(self, config: EngineConfig, model: LoadedModel, backend: str) -> RecordedSteps | None:
        if backend != "cpu" or not isinstance(self._decoder, FusedDecoder):
            return None
        from ift_serve.engine.runner.recorded_steps import RecordedSteps  # numba, which a GPU needs not

        return RecordedSteps(
            self._decoder,
            self._cache.layers,
            rows=min(config.max_sequences, _LOGIT_ROWS["cpu"]),
            hidden_size=int(model.config.hidden_size),
            dtype=model.dtype,
            longest=min(model.context_length, self.total_blocks * self.block_size),
            padded_rank=max(table.padded_rank for table in self.adapters.tables.everything),
        )

    def _warm_up(self) -> None:
        """The shapes that serving will have, so that the first request meets compiled kernels and warm memory."""
        sizes = self._graphs.sizes if self._graphs else []
        batches = list(warm_up_batches(self.block_size, sizes, self.description.vocabulary_size))
        for batch in batches:
            self.execute(batch)
        self.progress = Progress()  # what compiled and touched memory first says nothing of later steps
        self.progress.begin()
        self.execute(batches[0])
        if self._graphs is not None:
            self._warm_up_adapters()
        for layer in self._cache.layers:
            for memory in (layer.keys, layer.values):
                memory.view(torch.uint8)[0].zero_() if memory.dtype.itemsize == 1 else memory[0].zero_()
        if self.description.device == "cuda":
            assert self._graphs is not None
            self._graphs.capture_all()
            torch.cuda.synchronize()
            self.compile_monitor.start()

    @torch.inference_mode()
    def _warm_up_adapters(self) -> None:
        """What adapters add to a prompt and a decode; few tiles of rows and many choose other kernels."""
        for tiles in (1, 65):
            steps = [SequenceStep(-1, [0], 0, [0]), SequenceStep(-2, [0] * 8, 0, [0])]
            self.adapters.warm_up(self._build_batch(steps), tiles)

    def begin_serving(self) -> None:
        """What was computed so far was a rehearsal; from here on somebody waits for each step."""
        if self._recorded is not None:
            self._recorded.begin_serving()

    @property
    def recorded_sizes(self) -> tuple[int, ...]:
        """Rows of the decode steps that are run from records so far, on the CPU."""
        return () if self._recorded is None else self._recorded.sizes

    def profile(self) -> None:
        """Write a trace of the next steps, where the configuration names a directory for it."""
        self._profiler.ask()

    def execute(self, batch: StepBatch) -> StepResult:
        """Compute every sequence's tokens; results come in the order of ``batch.sequences``."""
        with self._profiler.step(self.progress):
            return self._execute(batch)

    def close(self) -> None:
        """End the other ranks, where there are any. They also end with this process."""
        if self._ranks is not None:
            self._ranks.close()

    def _lose(self, why: str) -> None:
        if self._on_lost is not None:
            self._on_lost(why)

    @torch.inference_mode()
    def _execute(self, batch: StepBatch) -> StepResult:
        if self._ranks is None:
            return self._compute(batch)
        try:
            return self._compute(batch)
        except Exception as error:
            # The ranks are at different operations from here on.
            self._lose(f"a step of {self._ranks.size} ranks failed: {type(error).__name__}: {error}")
            raise ComputeLostError(f"a step of {self._ranks.size} ranks failed") from error

    def _compute(self, batch: StepBatch) -> StepResult:
        indices, rows, targets = _output_rows(batch.sequences)
        if self._ranks is not None:
            total = sum(len(sequence.token_ids) for sequence in batch.sequences)
            asked = None if len(indices) == total else indices
            self._ranks.tell(shard_step(batch, self.block_size, asked, _LOGIT_ROWS[self.description.device]))
        if batch.block_copies:
            self._cache.copy_blocks(batch.block_copies)
        flat = self._build_batch(batch.sequences)
        flat.on_layer = self.progress.work
        slots = self.adapters.extend(flat, batch.sequences)
        everything = len(indices) == flat.input_ids.shape[0]
        logits = None
        if self._graphs is not None and everything and self._graphs.takes(flat):
            hidden, logits = self._graphs.run(flat)
        elif self._recorded is not None and everything and self._recorded.takes(flat):
            hidden, logits = self._recorded.run(flat)
        else:
            wanted = None if everything else torch.tensor(indices, dtype=torch.long, device=flat.input_ids.device)
            hidden = self._decoder.forward(flat, wanted)
        result = StepResult([None] * len(batch.sequences), [None] * len(batch.sequences))
        if indices:
            changed = None if slots is None else slots[flat.sequence.numpy(force=True)[indices]]
            self._fill(batch.sequences, hidden, logits, changed, rows, targets, result)
        return result

    def _fill(
        self,
        sequences: list[SequenceStep],
        hidden: Tensor,
        known: Tensor | None,
        slots: NDArray[np.int32] | None,
        rows: Rows,
        targets: list[int],
        result: StepResult,
    ) -> None:
        """Logits and tokens of the wanted positions, a bounded number of rows at a time."""
        log_probs, greedy = list[float](), list[bool]()
        drawn: list[SampledToken | None] = []
        step = _LOGIT_ROWS[self.description.device]
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            logits = self._decoder.logits(hidden[part]) if known is None else known[part]
            if slots is not None:
                logits = self.adapters.change_logits(hidden[part], logits, slots[part])
            sampled = self._sampler.run(logits, hidden[part], rows[part], targets[part])
            drawn += sampled_tokens(sampled, rows[part])
            scores = scored_tokens(sampled, 0, logits.shape[0])
            self.progress.work()
            log_probs += scores.log_probs
            greedy += scores.greedy
        place = 0
        for index, sequence in enumerate(sequences):
            if sequence.score_targets:
                count = len(sequence.score_targets)
                own = slice(place, place + count)
                judged = self.adapters.judge(hidden[own], sequence) if sequence.judges else []
                result.scored[index] = ScoredTokens(log_probs[own], greedy[own], judged)
                place += count
            if sequence.sampling is not None:
                result.sampled[index] = drawn[place]
                place += 1
                if sequence.drafts:
                    own = slice(place, place + len(sequence.drafts))
                    result.drafted[index] = [token for token in drawn[own] if token is not None]
                    place = own.stop


def checked_decoder(
    model: LoadedModel, backend: str, block_size: int, on_stage: Callable[[str], None], kept: KeptChecks | None
) -> Decoder:
    """The model's decoder, compared with the model itself, now or at an earlier start.

    ``on_stage`` is told what begins. Raises UnsupportedModelError where the two differ.
    """
    known = None if kept is None else kept.outcome()
    if known is not None:
        on_stage("packing weights")
        if known.windows is not None:
            serve_windows(model, known.windows)
        return make_decoder(model, backend, fuse=known.fuses)
    on_stage("comparing a small model with transformers")
    check = ServingCheck(model, backend, block_size)
    on_stage("packing weights")
    decoder = make_decoder(model, backend, fuse=check.fuses)
    on_stage("comparing the model with transformers")
    check.compare(decoder)
    if kept is not None:
        kept.keep(CheckOutcome(check.fuses, check.windows))
    return decoder


def _output_rows(sequences: list[SequenceStep]) -> tuple[list[int], Rows, list[int]]:
    """Flat indices whose logits are needed, with who draws from each or its score target."""
    indices, rows, targets = list[int](), list[DrawingRow | None](), list[int]()
    end = 0
    for sequence in sequences:
        end += len(sequence.token_ids)
        if sequence.score_targets:
            count = len(sequence.score_targets)
            indices += range(end - count, end)
            rows += [None] * count
            targets += sequence.score_targets
        if sequence.sampling is not None:
            drafts = sequence.drafts
            indices += range(end - 1 - len(drafts), end)
            rows.append(sequence)
            rows += [DraftedRow(row, sequence.adapter, sequence.prompt) for row in drafts]
            targets += [-1] * (1 + len(drafts))
    return indices, rows, targets
