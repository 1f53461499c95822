"""A recipe's data, ready to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ift_serve.text.prompt import PromptError, PromptRenderer
from ift_serve.text.tokenizer import load_tokenizer
from ift_training.base_recipe import BaseRecipe, RecipeError
from ift_training.data.dropped import dropped_records
from ift_training.data.encode import Encoder
from ift_training.data.selection import Progress, TrainingData, prepare
from ift_training.recipe import Recipe

RUN_FOLDER, REPORT = "training", "report.json"
"""Inside the adapter's directory: checkpoints, tensorboard's files, curves.png, report.json."""


def open_encoder(recipe: BaseRecipe) -> Encoder:
    """The encoder for the recipe's base and template. Raises RecipeError, TemplateError."""
    directory = recipe.base_directory()
    try:
        tokenizer = load_tokenizer(directory)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        # transformers raises any of these for a configuration file of the wrong shape.
        raise RecipeError(
            f"base: {directory} is no directory with a model, nor a hub id that can be fetched: {error}"
        ) from error
    named = recipe.template if recipe.template is not None and "{" not in recipe.template else None
    if recipe.template is not None and named is None:
        tokenizer.chat_template = recipe.template
    _check_named(tokenizer.chat_template, named)
    try:
        renderer = PromptRenderer(tokenizer, chat_template=named, parse_special_tokens=recipe.parse_special_tokens)
    except PromptError as error:
        raise RecipeError(f"base: {error}") from error
    return Encoder(renderer, recipe.max_length, loss_on=recipe.loss_on)


def _check_named(templates: Any, name: str | None) -> None:
    """A base with several templates has the one that is asked for. Raises RecipeError."""
    if not isinstance(templates, dict):
        if name is not None:
            raise RecipeError(
                f"template: {name!r} is no jinja text, no file beside the recipe, and the base has no templates by name"
            )
        return
    if (name or "default") not in templates:
        wrong = "none of them is the default" if name is None else f"none is named {name!r}"
        raise RecipeError(
            f"template: the base has templates named {', '.join(map(repr, templates))}, and {wrong}; give the recipe "
            "the name of one as its `template`, and serve with --chat-template NAME"
        )


def prepare_recipe(
    recipe: Recipe, encoder: Encoder, progress: Progress | None = None, dropped: Path | None = None
) -> TrainingData:
    """Read the recipe's sources; every record that is dropped is named in a file. Raises SourceError."""
    violations = recipe.trainer.losses.instruction > 0
    with dropped_records(dropped) as listed:
        return prepare(
            recipe.sources,
            recipe.validation,
            encoder,
            recipe.seed,
            violations=violations,
            progress=progress,
            dropped=listed,
        )
