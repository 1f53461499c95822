"""Greedy answers of a model in training, many prompts at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.text.prompt import RenderedPrompt
from ift_training.evaluation.cached_batch import CachedBatch


@torch.inference_mode()
def greedy(
    model: Any,
    components: InstructionComponents | None,
    prompts: Sequence[RenderedPrompt],
    end_ids: frozenset[int],
    *,
    max_new_tokens: int,
    batch_size: int,
) -> list[list[int]]:
    """Token ids of the answer to each prompt, without the end token.

    model: a decoder routed through this project's attention, components attached; in evaluation mode.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].token_ids))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        found = _batch(model, components, [prompts[i] for i in rows], end_ids, max_new_tokens)
        for index, answer in zip(rows, found, strict=True):
            answers[index] = answer
    return answers


def _batch(
    model: Any,
    components: InstructionComponents | None,
    prompts: Sequence[RenderedPrompt],
    end_ids: frozenset[int],
    max_new_tokens: int,
) -> list[list[int]]:
    device = model.get_input_embeddings().weight.device
    ids, segments, valid = (t.to(device) for t in _pad(prompts))
    batch = CachedBatch(ids, segments, valid, components)
    answers: list[list[int]] = [[] for _ in prompts]
    open_rows = list(range(len(prompts)))
    positions = batch.positions
    for _ in range(max_new_tokens):
        output = model(input_ids=ids, position_ids=positions, use_cache=False, batch=batch, logits_to_keep=1)
        chosen = output.logits[:, -1].argmax(-1)
        running = [place for place, token in enumerate(chosen.tolist()) if token not in end_ids]
        for place in running:
            answers[open_rows[place]].append(int(chosen[place]))
        if not running:
            break
        if len(running) < len(open_rows):
            kept = torch.tensor(running, device=device)
            batch.keep(kept)
            open_rows, chosen = [open_rows[place] for place in running], chosen[kept]
        ids, positions = chosen[:, None], batch.extend(chosen)
    return answers


def _pad(prompts: Sequence[RenderedPrompt]) -> tuple[Tensor, Tensor, Tensor]:
    """ids ``[B, L]`` int64, segments ``[B, L]`` uint8, valid ``[B, L]`` bool; padded on the left."""
    width = max(len(p.token_ids) for p in prompts)
    ids = torch.tensor([[0] * (width - len(p.token_ids)) + p.token_ids for p in prompts])
    segments = torch.tensor([[0] * (width - len(p.token_ids)) + list(p.segment_ids) for p in prompts])
    valid = torch.tensor([[False] * (width - len(p.token_ids)) + [True] * len(p.token_ids) for p in prompts])
    return ids, segments.to(torch.uint8), valid
