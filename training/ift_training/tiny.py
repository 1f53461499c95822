"""``python -m ift_training.tiny``: train the embedded model from scratch."""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ift_training.pretrain.batches import batches
from ift_training.pretrain.card import factual_mean, plot_curve, write_card
from ift_training.pretrain.corpus import conversations, pieces
from ift_training.pretrain.evaluate import families_with_thoughts, score_families, transformers_answers
from ift_training.pretrain.optimise import build_model, optimise
from ift_training.pretrain.recipe import Recipe
from ift_training.pretrain.tokenizer import build_tokenizer


def make_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """The tokenizer of the recipe, trained on its corpus."""
    sample = itertools.islice(
        conversations(recipe.seed, recipe.thought_share, recipe.cut_share), recipe.tokenizer_examples
    )
    texts = (text for item in sample for text, _ in pieces(*item))
    return build_tokenizer(texts, recipe.vocabulary, recipe.context)


def train(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> tuple[LlamaForCausalLM, list[float], int]:
    """The trained model in bf16, the curve of answer losses, and the number of tokens seen."""
    model = build_model(recipe, len(tokenizer), tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    seen = 0
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("training", total=recipe.steps, loss=float("nan"))

        def report(step: int, loss: float, tokens: int) -> None:
            nonlocal seen
            seen += tokens
            progress.update(task, completed=step + 1, loss=loss)
            if not progress.console.is_terminal and (step + 1) % 50 == 0:
                print(f"step {step + 1} of {recipe.steps}, {seen} tokens, loss {loss:.3f}", flush=True)

        curve = optimise(model, batches(tokenizer, recipe), recipe, report)
    return model.to(torch.bfloat16).eval(), curve, seen


def save(directory: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Weights, configuration and tokenizer, as transformers loads them."""
    directory.mkdir(parents=True, exist_ok=True)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(directory)
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(directory)
    for file in directory.iterdir():
        file.chmod(0o644)


def main() -> None:
    """Train, save, evaluate, write the card."""
    parser = argparse.ArgumentParser(prog="python -m ift_training.tiny", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/ift-tiny"), help="directory to write")
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    parser.add_argument("--evaluated", type=int, default=Recipe().evaluated, help="test examples a family")
    options = parser.parse_args()
    recipe = Recipe(steps=options.steps, seed=options.seed, evaluated=options.evaluated)
    begun = time.monotonic()
    tokenizer = make_tokenizer(recipe)
    model, curve, tokens = train(recipe, tokenizer)
    seconds = time.monotonic() - begun
    save(options.output, model, tokenizer)
    plot_curve(curve, options.output / "loss.png")
    scores = score_families(transformers_answers(model, tokenizer), recipe.evaluated, recipe.seed)
    thinking = transformers_answers(model, tokenizer, thinking=True)
    thoughtful = score_families(thinking, recipe.evaluated, recipe.seed, families_with_thoughts())
    parameters = sum(p.numel() for p in model.parameters())
    write_card(options.output, recipe, scores, thoughtful, parameters=parameters, tokens=tokens, seconds=seconds)
    for name, score in scores.items():
        print(f"{name:18} {100 * score:5.1f} %")
    for name, score in thoughtful.items():
        print(f"{name:18} {100 * score:5.1f} % behind a thought")
    print(f"factual families {100 * factual_mean(scores):.1f} %, {parameters} parameters, written to {options.output}")


if __name__ == "__main__":
    main()
