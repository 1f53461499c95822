"""Checks that a recipe fits its base model, before any weight is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ift_training.recipe import Recipe, RecipeError

if TYPE_CHECKING:
    from ift_training.settings import LoraSettings, TrainerSettings


def empty_base(recipe: Recipe) -> Any:
    """The recipe's base as transformers builds it, on the meta device: its files are looked at, no weight is read.

    Raises RecipeError where they are not a whole model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from ift_serve.modeling.checkpoint.construction import model_construction
    from ift_serve.modeling.checkpoint.files import ModelFilesError, check_model_files
    from ift_serve.modeling.checkpoint.meta_device import meta_device

    directory = recipe.base_directory()
    try:
        check_model_files(directory)
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        with model_construction, meta_device():
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ModelFilesError, OSError, ValueError, KeyError) as error:
        raise RecipeError(f"base: {recipe.base}: {error}") from error


def check_fits(recipe: Recipe, base: Any) -> None:
    """Layers that the low-rank part names are there, the mask token is one, files can be read.

    base: of :func:`empty_base`. Raises RecipeError.
    """
    from torch import nn

    if recipe.trainer.lora.rank:
        linears = sorted(path for path, module in base.named_modules() if isinstance(module, nn.Linear))
        _check_lora(recipe.trainer.lora, linears)
    token = recipe.trainer.masking.token
    vocabulary = int(base.config.get_text_config(decoder=True).vocab_size)
    if token is not None and token >= vocabulary:
        raise RecipeError(f"trainer.masking.token: {token} is not below the vocabulary's {vocabulary}")
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
