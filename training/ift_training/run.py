"""One training run, from a recipe to an adapter directory with its card, curves and report."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ift_serve.system.imports import large_imports
from ift_training.data.lost import check_lost
from ift_training.data.selection import TrainingData
from ift_training.fit import check_fits, empty_base
from ift_training.prepare import REPORT, RUN_FOLDER, open_encoder, prepare_recipe
from ift_training.progress import reading, stage
from ift_training.recipe import Recipe, RecipeError
from ift_training.reporting.memory import estimate
from ift_training.reporting.summary import TrainingReport
from ift_training.saved import incomplete, read_state, step_of, unfinished


def train(
    recipe: Recipe,
    *,
    dry_run: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    dropped: Path | None = None,
) -> TrainingReport:
    """Train the recipe's adapter and write it; with ``dry_run`` read the data and estimate the memory only.

    ``overwrite``: begin anew even where that deletes the checkpoints of a run that did not come to its end.
    ``dropped``: file to name every record in that is not used.

    Everything that can be wrong with recipe and data is found before the weights are loaded. Raises RecipeError,
    SourceError, TemplateError.
    """
    # Of several processes the first one speaks.
    progress = progress and os.environ.get("RANK", "0") == "0"
    console = Console(quiet=not progress)
    checkpoint = _last_checkpoint(recipe, console) if resume else None
    if not resume:
        _check_output(recipe.output, overwrite=overwrite)
    for note in recipe.notes():
        console.print(Text(note, style="yellow"))
    stage(f"opening the tokenizer of {recipe.base}", shown=progress)
    encoder = open_encoder(recipe)
    with reading(console, shown=progress) as counted:
        data = prepare_recipe(recipe, encoder, counted, dropped)
    console.print(data.report.table())
    check_lost(data.report, recipe.max_lost)
    _check_validation(recipe, data, console)
    stage(f"measuring the memory that training {recipe.base} takes", shown=progress)
    empty = empty_base(recipe)
    check_fits(recipe, empty)
    memory, trained = estimate(recipe, empty, data.report.longest)
    console.print(str(memory), highlight=False)
    report = TrainingReport(recipe.name, recipe.base, data.report, memory, trained)
    if not memory.fits:
        console.print("[yellow]That is more than there is: lower trainer.batch_size or max_length, or use[/]")
        console.print("[yellow]trainer.gradient_checkpointing.[/]")
    if dry_run:
        return report
    _make(recipe.output)
    stage("loading what trains", shown=progress)
    # Torch and transformers take seconds to import, which a mistake in a recipe should not cost.
    with large_imports():
        from ift_training.training_loop import run_loop

    run_loop(recipe, encoder, data, report, checkpoint, console if progress else None)
    return report


def _check_validation(recipe: Recipe, data: TrainingData, console: Console) -> None:
    """Whatever waits for evaluations has something to evaluate."""
    if data.validation or not (recipe.validation.share or recipe.validation.sources):
        return
    if recipe.evaluation.patience:
        raise RecipeError(
            "evaluation.patience: nothing is set apart for validation, so there is nothing to wait for; give more "
            "records, or validation.sources"
        )
    console.print("[yellow]Nothing is set apart for validation: nothing is evaluated, the last weights are written.[/]")


def _check_output(output: Path, *, overwrite: bool) -> None:
    """An adapter may replace an earlier one, but nothing else is written over, nor a run that can go on."""
    from ift_serve.modeling.adapter_format.config import IFT_CONFIG

    above = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise RecipeError(f"output: {output} cannot be made: {above} is no directory that may be written to")
    if output.exists() and any(output.iterdir()):
        known = (output / IFT_CONFIG).exists() or (output / RUN_FOLDER).is_dir()
        if not known:
            raise RecipeError(f"output: {output} holds other files; name a new directory")
    last = unfinished(output / RUN_FOLDER, REPORT)
    if last is not None and not overwrite:
        raise RecipeError(
            f"output: {output} holds checkpoints of a run that did not come to its end, the last of step "
            f"{step_of(last)}; go on from it with --resume, or delete them and begin anew with --overwrite"
        )


def _make(output: Path) -> None:
    """The directory, tried out: a training should not end at a disk that takes nothing."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output) as file:
            file.write(b" ")
    except OSError as error:
        raise RecipeError(f"output: {output} cannot be written to: {error.strerror}") from error


def _last_checkpoint(recipe: Recipe, console: Console) -> Path:
    """The newest that is whole: a process that was killed may have left one that is not."""
    folder = recipe.output / RUN_FOLDER
    found = [path for path in folder.glob("checkpoint-*") if step_of(path) >= 0]
    for path in sorted(found, key=step_of, reverse=True):
        if (missing := incomplete(path)) is None:
            _check_unfinished(recipe, path)
            return path
        console.print(Text(f"{path.name} is passed over: {missing}", style="yellow"))
    raise RecipeError(
        f"--resume: {folder} holds no checkpoint that is whole; run without --resume, and set trainer.save_steps or "
        "evaluation.every so that there will be some"
    )


def _check_unfinished(recipe: Recipe, checkpoint: Path) -> None:
    """A run that came to its end has nothing to go on with, unless more is asked of it now."""
    state, trainer = read_state(checkpoint), recipe.trainer
    done, planned = int(state["global_step"]), int(state["max_steps"])
    if trainer.max_steps:
        more = trainer.max_steps > max(done, planned)
    else:
        more = trainer.epochs > max(float(state["epoch"]), float(state["num_train_epochs"])) + 1e-6
    report = recipe.output / RUN_FOLDER / REPORT
    ended = report.exists() and json.loads(report.read_text(encoding="utf-8"))["steps"] == done
    if ended and not more:
        raise RecipeError(
            f"--resume: this run is finished after {done} steps; raise trainer.max_steps or trainer.epochs to go on, "
            "or run without --resume to begin anew"
        )
