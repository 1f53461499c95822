"""Whether a recipe fits its base model, found before any weight is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ift_training.recipe import Recipe, RecipeError

if TYPE_CHECKING:
    from ift_training.settings import LoraSettings, TrainerSettings


def check_fits(recipe: Recipe) -> None:
    """Layers that the low-rank part names are there, the mask token is one, files can be read. Raises RecipeError."""
    from ift_serve.modeling.adapters.base import BaseFacts

    try:
        facts = BaseFacts.of_directory(Path(recipe.base_directory()))
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(f"base: {recipe.base}: {error}") from error
    if recipe.trainer.lora.rank:
        _check_lora(recipe.trainer.lora, sorted(facts.linears))
    token = recipe.trainer.masking.token
    if token is not None and token >= facts.vocabulary_size:
        raise RecipeError(f"trainer.masking.token: {token} is not below the vocabulary's {facts.vocabulary_size}")
    _check_files(recipe.trainer)


def matches(pattern: str, path: str) -> bool:
    """Whether a key of a pattern is of a module, as PEFT reads it: a regular expression for the end of its path."""
    return re.match(rf"(.*\.)?({pattern})$", path) is not None


def _check_lora(lora: LoraSettings, paths: list[str]) -> None:
    names = sorted({path.rsplit(".", 1)[-1] for path in paths})
    if lora.targets != "all-linear":
        for target in lora.targets:
            if not any(path == target or path.endswith(f".{target}") for path in paths):
                raise _unknown("targets", target, names)
    for field, patterns in (("rank_pattern", lora.rank_pattern), ("alpha_pattern", lora.alpha_pattern)):
        for pattern in patterns:
            try:
                found = any(matches(pattern, path) for path in paths)
            except re.error as error:
                raise RecipeError(f"trainer.lora.{field}: {pattern!r} is no regular expression: {error}") from error
            if not found:
                raise _unknown(field, pattern, names)


def _unknown(field: str, name: str, known: Iterable[str]) -> RecipeError:
    return RecipeError(f"trainer.lora.{field}: the base has no linear layer {name!r}; there are {', '.join(known)}")


def _check_files(trainer: TrainerSettings) -> None:
    fisher = trainer.losses.ewc.fisher
    if fisher is not None and not fisher.is_file():
        raise RecipeError(f"trainer.losses.ewc.fisher: {fisher} is not there; write it with `ift-serve train fisher`")
