"""Token batches of similar lengths, with a loss weight for every token."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ift_training.pretrain.corpus import conversations, pieces
from ift_training.pretrain.recipe import Recipe

_POOL = 4096
"""Conversations sorted by length at a time, so that a batch is padded little."""


def _encode(
    tokenizer: PreTrainedTokenizerFast, pool: list[list[tuple[str, bool]]], prompt_weight: float
) -> list[tuple[list[int], list[float]]]:
    texts = [text for parts in pool for text, _ in parts]
    encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    rows = []
    for parts in pool:
        ids, weights = list[int](), list[float]()
        for _, learned in parts:
            part = next(encoded)
            ids += part
            weights += [1.0 if learned else prompt_weight] * len(part)
        rows.append((ids, weights))
    return rows


def batches(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless ``(ids [B, T] int64, weights [B, T] float32)``; B x T is at most ``recipe.batch_tokens``."""
    rng = random.Random(recipe.seed)
    stream = conversations(recipe.seed, recipe.thought_share, recipe.cut_share)
    pad = tokenizer.pad_token_id
    while True:
        pool = [pieces(*item) for item in itertools.islice(stream, _POOL)]
        rows = sorted(_encode(tokenizer, pool, recipe.prompt_weight), key=lambda row: len(row[0]))
        groups: list[list[tuple[list[int], list[float]]]] = [[]]
        for row in rows:
            if groups[-1] and (len(groups[-1]) + 1) * len(row[0]) > recipe.batch_tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            width = len(group[-1][0])
            ids = torch.tensor([r[0] + [pad] * (width - len(r[0])) for r in group])
            yield ids, torch.tensor([r[1] + [0.0] * (width - len(r[1])) for r in group])
