"""A small model beside the one that is served, which guesses its next tokens."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field

import msgspec
import torch

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.engine.runner.batch_builder import BatchBuilder
from ift_serve.engine.runner.kv_cache import KVCache, bytes_per_block
from ift_serve.engine.runner.serving_check import ServingCheck
from ift_serve.engine.sampling.sampler import Sampler
from ift_serve.engine.sampling.temperatures import Temperatures
from ift_serve.engine.sequences.adjusted_tokens import is_adjusted
from ift_serve.engine.sequences.draft_query import DraftQuery
from ift_serve.engine.sequences.step import DraftedRow, SamplingRow, SequenceStep
from ift_serve.modeling.decoder.decoder import make_decoder
from ift_serve.modeling.decoder.model_loader import load_model
from ift_serve.system.machine import available_memory

_log = logging.getLogger(__name__)

_BLOCK = 16
_TEXTS = 16
"""Texts at full length that the cache has blocks for, memory permitting."""
_MEMORY_SHARE = 8
"""The part of free memory that the cache takes at most is one over this."""


@dataclass(slots=True)
class _Text:
    """What the model has read of a sequence, guesses of its own included, and the blocks that hold it."""

    tokens: list[int] = field(default_factory=list)
    table: list[int] = field(default_factory=list)


class DraftModel:
    """The ``GuessingModel`` of an engine on the CPU. What it reads stays until its blocks are wanted by later texts."""

    @torch.inference_mode()
    def __init__(self, config: EngineConfig, served: ModelDescription) -> None:
        """Raises UnsupportedModelError, ValueError and OSError, for the operator."""
        assert config.draft_model is not None
        model = load_model(config.draft_model, dtype=config.dtype, device="cpu")
        check = ServingCheck(model, "cpu", _BLOCK)
        self._decoder = make_decoder(model, "cpu", fuse=check.fuses)
        check.compare(self._decoder)
        self._vocabulary = int(model.config.vocab_size)
        self._takes_masks = self._vocabulary == served.vocabulary_size
        self._length = min(model.context_length, served.context_length)
        wanted = _TEXTS * -(-self._length // _BLOCK)
        size = bytes_per_block(model.geometry, _BLOCK, model.dtype)
        count = max(-(-self._length // _BLOCK), min(wanted, available_memory() // _MEMORY_SHARE // size))
        self._cache = KVCache(model.geometry, count, _BLOCK, model.dtype, "cpu")
        self._free = list(range(count - 1, -1, -1))
        self._build = BatchBuilder(self._cache.layers, model.geometry, _BLOCK, "cpu", split=False)
        self._sampler = Sampler(Temperatures())
        self._most = config.max_batch_tokens
        self._texts: OrderedDict[int, _Text] = OrderedDict()
        self._is_sound = True

    def guess(self, queries: list[DraftQuery], count: int) -> list[list[int]]:
        """See :class:`ift_serve.engine.drafting.guessing_model.GuessingModel`."""
        guessed: list[list[int]] = [[] for _ in queries]
        if not self._is_sound:
            return guessed
        try:
            self._guess(queries, count, guessed)
        except Exception:
            # What is guessed is no part of any answer; an engine without guesses answers the same.
            _log.exception("the draft model failed; nothing is guessed by it any more")
            self._is_sound = False
        return guessed

    @torch.inference_mode()
    def _guess(self, queries: list[DraftQuery], count: int, guessed: list[list[int]]) -> None:
        budget = self._most
        steps: list[SequenceStep] = []
        ready: list[int] = []
        for place, query in enumerate(queries):
            step = self._next_part(query, count, budget, steps)
            if step is None:
                continue
            budget -= len(step.token_ids)
            steps.append(step)
            if step.start + len(step.token_ids) == len(query.tokens):
                ready.append(place)
        while steps:
            self._draw(queries, steps, ready, guessed)
            ready = [place for place in ready if len(guessed[place]) < count and guessed[place][-1] < self._vocabulary]
            steps = [self._after(queries[place], guessed[place]) for place in ready]

    def _next_part(self, query: DraftQuery, count: int, budget: int, steps: list[SequenceStep]) -> SequenceStep | None:
        """What it has not read of a text, as far as the budget goes, beside the steps that there are already."""
        length = len(query.tokens)
        if not budget or length + count > self._length:
            return None
        text = self._texts.pop(query.number, None) or _Text()
        kept = {step.sequence_id for step in steps}
        known = min(_common(text.tokens, query.tokens), length - 1)
        part = query.tokens[known : known + budget]
        if max(part) >= self._vocabulary or not self._has_room(text, length + count, kept):
            self._free += text.table
            return None
        self._texts[query.number] = text
        text.tokens = query.tokens[: known + len(part)]
        return SequenceStep(query.number, part, known, text.table, sampling=query.row)

    def _has_room(self, text: _Text, length: int, kept: set[int]) -> bool:
        """Give a text blocks, those of what was read longest ago if none is free, but not those that are ``kept``."""
        while len(text.table) * _BLOCK < length:
            if not self._free:
                oldest = next(iter(self._texts), None)
                if oldest is None or oldest in kept:
                    return False
                self._free += self._texts.pop(oldest).table
            text.table.append(self._free.pop())
        return True

    def _after(self, query: DraftQuery, guessed: list[int]) -> SequenceStep:
        """Read the token that was guessed last."""
        text = self._texts[query.number]
        text.tokens.append(guessed[-1])
        return SequenceStep(query.number, guessed[-1:], len(text.tokens) - 1, text.table, sampling=query.row)

    def _draw(
        self, queries: list[DraftQuery], steps: list[SequenceStep], ready: list[int], guessed: list[list[int]]
    ) -> None:
        """Compute the steps; one more guess at each place whose text they complete."""
        by_number = {queries[place].number: place for place in ready}
        ends = torch.tensor([len(step.token_ids) for step in steps]).cumsum(0) - 1
        complete = [index for index, step in enumerate(steps) if step.sequence_id in by_number]
        hidden = self._decoder.forward(self._build(steps), ends[complete])
        if not complete:
            return
        places = [by_number[steps[index].sequence_id] for index in complete]
        rows = [DraftedRow(self._row(queries[place].row, guessed[place]), 0, None) for place in places]
        drawn = self._sampler.run(self._decoder.logits(hidden), hidden, rows, [-1] * len(rows))
        for place, token in zip(places, drawn.rows.tokens.tolist(), strict=True):
            guessed[place].append(max(token, 0))

    def _row(self, row: SamplingRow, guessed: list[int]) -> SamplingRow:
        """How the served model will draw there, without what only it can tell."""
        drafted, params = tuple(guessed), row.params
        if is_adjusted(params) and not self._takes_masks:
            params = msgspec.structs.replace(
                params, logit_bias={}, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0
            )
        mask = row.mask if self._takes_masks and not drafted else None
        after = row.after(drafted, mask)
        after.params = _drawn_alone(params)
        after.calibration = None
        return after


def _drawn_alone(params: SamplingParams) -> SamplingParams:
    return msgspec.structs.replace(
        params, adaptive=None, target_probability=None, processed_log_probs=False, top_logprobs=0
    )


def _common(known: list[int], tokens: list[int]) -> int:
    """How many tokens two texts begin with alike."""
    shared = min(len(known), len(tokens))
    if tokens[:shared] == known[:shared]:
        return shared
    return next(place for place in range(shared) if known[place] != tokens[place])
