"""Runs the model on one step's batch: flattens it, computes, samples."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.kv_cache import KVCache, bytes_per_block
from ift_serve.engine.messages import ModelDescription, SamplingParams
from ift_serve.engine.sampler import Sampler, sampled_tokens, scored_tokens
from ift_serve.engine.step import SamplingRow, SequenceStep, StepBatch, StepResult
from ift_serve.modeling.batch import FlatBatch
from ift_serve.modeling.decoder import Decoder, make_decoder
from ift_serve.modeling.loading import LoadedModel, load_model

_TILE_ROWS = 4
_LOGIT_ROWS = 64
"""Rows of logits computed at a time: bounds memory to 64 vocabularies when long texts are scored."""


def _device(config: EngineConfig) -> str:
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _block_count(config: EngineConfig, model: LoadedModel) -> int:
    """Blocks for the cache: as asked, else what all sequences at full context need, within a quarter of memory."""
    if config.total_blocks is not None:
        return config.total_blocks
    size = bytes_per_block(model.geometry, config.block_size, model.dtype)
    wanted = config.max_sequences * -(-model.context_length // config.block_size)
    budget = config.cache_bytes if config.cache_bytes is not None else _free_memory() // 4
    blocks = min(wanted, budget // size)
    if blocks < 1:
        raise ValueError(f"cache_bytes: {budget} bytes do not hold one block of {size} bytes")
    return blocks


_WARM = SamplingParams(top_p=0.9, top_k=8, max_new_tokens=1)


class ModelRunner:
    """Owns the model and the cache memory. ``execute`` is the only way to compute."""

    def __init__(self, config: EngineConfig) -> None:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        device = _device(config)
        model = load_model(
            config.model, name=config.model_name, dtype=config.dtype, device=device,
            context_length=config.context_length,
        )  # fmt: skip
        self.block_size = config.block_size
        self.total_blocks = _block_count(config, model)
        self._cache = KVCache(model.geometry, self.total_blocks, self.block_size, model.dtype)
        self._decoder: Decoder = make_decoder(model, use_kernels=config.attention_backend != "reference")
        self._sampler = Sampler()
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
            eos_ids=model.eos_ids,
            block_size=self.block_size,
            total_blocks=self.total_blocks,
            max_batch_tokens=config.max_batch_tokens,
            max_sequences=config.max_sequences,
            attention_backend=self._decoder.name,
            features=["generate", "score", "statistics", "prefix_caching"] if config.prefix_caching else [],
        )
        self._warm_up()

    def _warm_up(self) -> None:
        """One prompt and one decode step, so that the first request meets compiled kernels and warm memory."""
        row = SamplingRow(_WARM, 0, 0, 1.0, [0], 1)
        for count in (min(8, self.block_size), 1):
            step = SequenceStep(-1, [0] * count, 0, [0], b"", row)
            self.execute(StepBatch([step], []))
        for layer in self._cache.layers:
            layer.keys[0].zero_()
            layer.values[0].zero_()

    @torch.inference_mode()
    def execute(self, batch: StepBatch) -> StepResult:
        """Compute every sequence's tokens; results come in the order of ``batch.sequences``."""
        if batch.block_copies:
            self._cache.copy_blocks(batch.block_copies)
        indices, rows, targets = _output_rows(batch.sequences)
        flat = self._flatten(batch.sequences)
        everything = len(indices) == flat.input_ids.shape[0]
        hidden = self._decoder.forward(flat, None if everything else torch.tensor(indices, dtype=torch.long))
        result = StepResult([None] * len(batch.sequences), [None] * len(batch.sequences))
        if indices:
            self._fill(batch.sequences, hidden, rows, targets, result)
        return result

    def _fill(
        self,
        sequences: list[SequenceStep],
        hidden: Tensor,
        rows: list[SamplingRow | None],
        targets: list[int],
        result: StepResult,
    ) -> None:
        """Logits and tokens of the wanted positions, a bounded number of rows at a time."""
        log_probs, greedy = list[float](), list[bool]()
        drawn = []
        for first in range(0, len(rows), _LOGIT_ROWS):
            part = slice(first, first + _LOGIT_ROWS)
            logits = self._decoder.logits(hidden[part])
            sampled = self._sampler.run(logits, rows[part], targets[part])
            drawn += sampled_tokens(sampled, rows[part])
            scores = scored_tokens(sampled, 0, logits.shape[0])
            log_probs += scores.log_probs
            greedy += scores.greedy
        place = 0
        for index, sequence in enumerate(sequences):
            if sequence.score_targets:
                count = len(sequence.score_targets)
                result.scored[index] = type(scores)(log_probs[place : place + count], greedy[place : place + count])
                place += count
            if sequence.sampling is not None:
                result.sampled[index] = drawn[place]
                place += 1

    def _flatten(self, sequences: list[SequenceStep]) -> FlatBatch:
        """Lay the sequences' tokens side by side."""
        counts = [len(s.token_ids) for s in sequences]
        total = sum(counts)
        longest = max(s.start + n for s, n in zip(sequences, counts, strict=True))
        width = -(-longest // self.block_size)
        tables = np.zeros((len(sequences), width), dtype=np.int32)
        positions = np.empty(total, dtype=np.int32)
        owner = np.empty(total, dtype=np.int32)
        ids = np.empty(total, dtype=np.int64)
        segments = np.zeros(total, dtype=np.uint8)
        first = 0
        for index, (sequence, count) in enumerate(zip(sequences, counts, strict=True)):
            end = sequence.start + count
            used = -(-end // self.block_size)
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
        slots = tables[owner, positions // self.block_size] * self.block_size + positions % self.block_size
        return FlatBatch(
            input_ids=torch.from_numpy(ids),
            positions=torch.from_numpy(positions),
            slots=torch.from_numpy(slots),
            sequence=torch.from_numpy(owner),
            lengths=torch.from_numpy(positions + 1),
            longest=longest,
            block_tables=torch.from_numpy(tables),
            segments=torch.from_numpy(segments),
            layers=self._cache.layers,
            tiles=_tiles(counts),
        )


def _tiles(counts: list[int]) -> torch.Tensor:
    """Bounds of groups of up to four neighbouring rows of one sequence."""
    bounds, first = [0], 0
    for count in counts:
        bounds += range(first + _TILE_ROWS, first + count, _TILE_ROWS)
        first += count
        bounds.append(first)
    return torch.tensor(bounds, dtype=torch.int32)


def _output_rows(sequences: list[SequenceStep]) -> tuple[list[int], list[SamplingRow | None], list[int]]:
    """Flat indices whose logits are needed, with the sampling row or the score target of each."""
    indices, rows, targets = list[int](), list[SamplingRow | None](), list[int]()
    end = 0
    for sequence in sequences:
        end += len(sequence.token_ids)
        if sequence.score_targets:
            count = len(sequence.score_targets)
            indices += range(end - count, end)
            rows += [None] * count
            targets += sequence.score_targets
        if sequence.sampling is not None:
            indices.append(end - 1)
            rows.append(sequence.sampling)
            targets.append(-1)
    return indices, rows, targets
