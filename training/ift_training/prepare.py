"""A recipe's data, ready to train on."""

from __future__ import annotations

from ift_serve.text.prompt import PromptRenderer
from ift_serve.text.tokenizer import load_tokenizer
from ift_training.data.encode import Encoder
from ift_training.data.selection import Progress, TrainingData, prepare
from ift_training.recipe import Recipe, RecipeError

RUN_FOLDER, REPORT = "training", "report.json"
"""Inside the adapter's directory: checkpoints, tensorboard's files, curves.png, report.json."""


def open_encoder(recipe: Recipe) -> Encoder:
    """The encoder for the recipe's base and template. Raises RecipeError, TemplateError."""
    directory = recipe.base_directory()
    try:
        tokenizer = load_tokenizer(directory)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        # transformers raises any of these for a configuration file of the wrong shape.
        raise RecipeError(
            f"base: {directory} is no directory with a model, nor a hub id that can be fetched: {error}"
        ) from error
    if recipe.template is not None:
        tokenizer.chat_template = recipe.template
    return Encoder(PromptRenderer(tokenizer), recipe.max_length, loss_on=recipe.loss_on)


def prepare_recipe(recipe: Recipe, encoder: Encoder, progress: Progress | None = None) -> TrainingData:
    """Read the recipe's sources. Raises SourceError."""
    violations = recipe.trainer.losses.instruction > 0
    return prepare(recipe.sources, recipe.validation, encoder, recipe.seed, violations=violations, progress=progress)
