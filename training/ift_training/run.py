"""One training run, from a recipe to an adapter directory with its card, curves and report."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from ift_training.data.selection import TrainingData
from ift_training.prepare import RUN_FOLDER, open_encoder, prepare_recipe
from ift_training.progress import reading
from ift_training.recipe import Recipe, RecipeError
from ift_training.reporting.memory import MemoryEstimate, estimate
from ift_training.reporting.summary import TrainingReport


def train(recipe: Recipe, *, dry_run: bool = False, resume: bool = False, progress: bool = True) -> TrainingReport:
    """Train the recipe's adapter and write it; with ``dry_run`` read the data and estimate the memory only.

    Everything that can be wrong with recipe and data is found before the weights are loaded. Raises RecipeError,
    SourceError, TemplateError.
    """
    # Of several processes the first one speaks.
    progress = progress and os.environ.get("RANK", "0") == "0"
    console = Console(quiet=not progress)
    checkpoint = _last_checkpoint(recipe) if resume else None
    if not resume:
        _check_output(recipe.output)
    encoder = open_encoder(recipe)
    with reading(console, shown=progress) as counted:
        data = prepare_recipe(recipe, encoder, counted)
    console.print(data.report.table())
    memory, trained = _estimated(recipe, data)
    console.print(str(memory), highlight=False)
    report = TrainingReport(recipe.name, recipe.base, data.report, memory, trained)
    if not memory.fits:
        console.print("[yellow]That is more than there is: lower trainer.batch_size or max_length, or use[/]")
        console.print("[yellow]trainer.gradient_checkpointing.[/]")
    if dry_run:
        return report
    # Torch and transformers take seconds to import, which a mistake in a recipe should not cost.
    from ift_training.loop import run_loop

    run_loop(recipe, encoder, data, report, checkpoint, console if progress else None)
    return report


def _estimated(recipe: Recipe, data: TrainingData) -> tuple[MemoryEstimate, int]:
    try:
        return estimate(recipe, data.report.longest)
    except (OSError, ValueError) as error:
        raise RecipeError(f"base: {recipe.base}: {error}") from error


def _check_output(output: Path) -> None:
    """An adapter may replace an earlier one, but nothing else is written over."""
    from ift_serve.modeling.adapters.config import IFT_CONFIG

    if output.exists() and any(output.iterdir()):
        known = (output / IFT_CONFIG).exists() or (output / RUN_FOLDER).is_dir()
        if not known:
            raise RecipeError(f"output: {output} holds other files; name a new directory")


def _last_checkpoint(recipe: Recipe) -> Path:
    folder = recipe.output / RUN_FOLDER
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    if not found:
        raise RecipeError(
            f"--resume: {folder} holds no checkpoint; run without --resume, and set trainer.save_steps or "
            "evaluation.every so that there will be some"
        )
    return max(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))
