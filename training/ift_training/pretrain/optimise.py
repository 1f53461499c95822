"""The optimisation loop: Muon for matrices, AdamW for the rest, bf16 products, fp32 weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from ift_training.pretrain.recipe import Recipe


def build_model(recipe: Recipe, vocabulary: int, end_id: int, begin_id: int, pad_id: int) -> LlamaForCausalLM:
    """A freshly initialised Llama of the recipe's shape."""
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=recipe.hidden,
            intermediate_size=recipe.intermediate,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            max_position_embeddings=recipe.context,
            tie_word_embeddings=True,
            rms_norm_eps=1e-5,
            eos_token_id=end_id,
            bos_token_id=begin_id,
            pad_token_id=pad_id,
        )
    )


def _optimisers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    named = list(model.named_parameters())
    matrices = [p for n, p in named if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    rest = [p for n, p in named if not any(p is m for m in matrices)]
    return [
        torch.optim.Muon(
            matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=recipe.vector_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, recipe: Recipe) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine down to ``final_rate``."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.final_rate + (1 - recipe.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


_PROMPT_SHARE = 0.15
"""Prompt tokens whose loss is computed; the vocabulary product and its softmax are a third of a step."""


def _loss(model: LlamaForCausalLM, ids: Tensor, weights: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weighted mean cross entropy of the next token, and the plain mean over answers (for the curve).

    A random share of the prompt tokens stands for all of them, with its weight raised to match.
    """
    target, weight = ids[:, 1:].flatten(), weights[:, 1:].flatten()
    answers = weight == 1.0
    drawn = torch.rand(weight.shape, generator=generator) < _PROMPT_SHARE
    chosen = torch.nonzero(answers | (drawn & (weight > 0)))[:, 0]
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden.flatten(0, 1)[chosen])
    losses = cross_entropy(logits.float(), target[chosen], reduction="none")
    is_answer = answers[chosen]
    scaled = torch.where(is_answer, 1.0, weight[chosen] / _PROMPT_SHARE)
    return (losses * scaled).sum() / scaled.sum(), (losses.detach() * is_answer).sum() / is_answer.sum()


def optimise(
    model: LlamaForCausalLM,
    stream: Iterator[tuple[Tensor, Tensor]],
    recipe: Recipe,
    report: Callable[[int, float, int], None],
) -> list[float]:
    """Train for ``recipe.steps``; ``report(step, answer loss, tokens)`` after each. Returns the answer losses."""
    optimisers = _optimisers(model, recipe)
    peaks = [group["lr"] for o in optimisers for group in o.param_groups]
    curve: list[float] = []
    generator = torch.Generator().manual_seed(recipe.seed)
    model.train()
    for step in range(recipe.steps):
        ids, weights = next(stream)
        share = rate(step, recipe)
        for group, peak in zip((g for o in optimisers for g in o.param_groups), peaks, strict=True):
            group["lr"] = peak * share
        loss, answer_loss = _loss(model, ids, weights, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        curve.append(float(answer_loss))
        report(step, curve[-1], ids.numel())
    return curve
