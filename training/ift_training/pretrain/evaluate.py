"""Greedy accuracy per family on examples whose combinations were never trained on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from ift_serve.checks import judge_all, pass_rates
from ift_training.data.procedural import Example, draw, families
from ift_training.data.procedural.splits import Split
from ift_training.pretrain.tokenizer import END_THINK

Answer = Callable[[list[str]], list[str]]


def held_out(name: str, count: int, seed: int, split: Split = "test") -> list[Example]:
    """``count`` examples of a family, the same for the same seed."""
    rng = random.Random(f"{name}|{seed}")
    return [draw(families()[name], split, rng) for _ in range(count)]


def transformers_answers(model: nn.Module, tokenizer: PreTrainedTokenizerFast, *, thinking: bool = False) -> Answer:
    """Answer prompts greedily with ``transformers.generate``, in one padded batch.

    ``thinking``: behind a thought, which is no part of the answer; where it does not end there is no answer.
    """

    def answer(prompts: list[str]) -> list[str]:
        tokenizer.padding_side = "left"
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True, enable_thinking=thinking
            )
            for p in prompts
        ]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            output = model.generate(  # type: ignore[operator]
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=96, do_sample=False
            )
        new = output[:, batch["input_ids"].shape[1] :]
        answers = [str(text) for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
        return [text.partition(END_THINK)[2] for text in answers] if thinking else answers

    return answer


def families_with_thoughts() -> list[str]:
    """Names of the families whose examples come with the steps to their answers."""
    return [name for name in families() if held_out(name, 1, 0)[0].thought]


def score_families(answer: Answer, count: int, seed: int, names: Iterable[str] | None = None) -> dict[str, float]:
    """Share of held-out examples that pass their checks, of the families of these names or of all."""
    outcomes = []
    for name in families() if names is None else names:
        examples = held_out(name, count, seed)
        responses = answer([e.prompt for e in examples])
        outcomes += [(name, bool(judge_all(e.checks, r))) for e, r in zip(examples, responses, strict=True)]
    return pass_rates(outcomes).tasks
