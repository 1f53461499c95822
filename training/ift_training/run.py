"""One training run, from a recipe to an adapter directory with its card, curves and report."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from ift_training.build import Built, build_model
from ift_training.data.encode import Encoder
from ift_training.data.mixture import TrainingData
from ift_training.evaluation.callback import METRIC, EpochCallback, ScoreCallback
from ift_training.evaluation.score import Judged, Scorer, Scores, scores
from ift_training.prepare import open_encoder, prepare_recipe
from ift_training.progress import ProgressCallback, reading
from ift_training.recipe import Recipe, RecipeError
from ift_training.reporting.card import model_card
from ift_training.reporting.curves import plot
from ift_training.reporting.memory import MemoryEstimate, estimate
from ift_training.reporting.summary import TrainingReport
from ift_training.trainer import InstructionTrainer, make_trainer

RUN_FOLDER = "training"
"""Inside the adapter's directory: checkpoints, tensorboard's files, curves.png, report.json."""
_CHECKPOINTS_KEPT = 2
_EVALUATION_BATCH = 32


@dataclass(slots=True)
class _Run:
    """A recipe with what was opened for it."""

    recipe: Recipe
    encoder: Encoder
    data: TrainingData
    built: Built
    report: TrainingReport
    scorer: Scorer

    @property
    def folder(self) -> Path:
        return self.recipe.output / RUN_FOLDER

    def judged(self) -> list[Judged]:
        """Answers of the model as it is now."""
        return self.scorer.judged(self.built.model.causal, self.built.model.components)

    def score(self) -> Scores:
        """Scores of the model as it is now."""
        return scores(self.judged())


def train(recipe: Recipe, *, dry_run: bool = False, resume: bool = False, progress: bool = True) -> TrainingReport:
    """Train the recipe's adapter and write it; with ``dry_run`` read the data and estimate the memory only.

    Everything that can be wrong with recipe and data is found before the weights are loaded. Raises RecipeError,
    SourceError, TemplateError.
    """
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
    built = _built(recipe, data.tasks)
    scorer = Scorer(
        data.validation, encoder, examples=recipe.evaluation.examples, batch_size=recipe.evaluation.batch_size,
        max_new_tokens=recipe.evaluation.max_new_tokens,
    )  # fmt: skip
    return _run(_Run(recipe, encoder, data, built, report, scorer), checkpoint, console if progress else None)


def _estimated(recipe: Recipe, data: TrainingData) -> tuple[MemoryEstimate, int]:
    try:
        return estimate(recipe, data.report.longest)
    except (OSError, ValueError) as error:
        raise RecipeError(f"base: {recipe.base}: {error}") from error


def _built(recipe: Recipe, tasks: list[str]) -> Built:
    try:
        return build_model(recipe.base_directory(), recipe.trainer, tasks, recipe.seed)
    except OSError as error:
        raise RecipeError(f"base: {recipe.base}: {error}") from error
    except ValueError as error:
        raise RecipeError(f"trainer: {error}") from error


def _run(run: _Run, checkpoint: str | None, console: Console | None) -> TrainingReport:
    begun = time.monotonic()
    if run.scorer:
        run.report.before = run.score().tasks
    trainer = _trainer(run, console)
    if checkpoint is None:
        _forget(run.folder)
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        _finish(run, trainer, begun)
    return run.report


def _trainer(run: _Run, console: Console | None) -> InstructionTrainer:
    from transformers import EarlyStoppingCallback, PrinterCallback

    recipe = run.recipe
    callbacks: list[Any] = [EpochCallback(run.data.train)]
    if run.scorer:
        callbacks.append(ScoreCallback(run.score))
    options = _evaluation_options(run)
    if recipe.evaluation.patience and "metric_for_best_model" in options:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=recipe.evaluation.patience))
    if console is not None:
        callbacks.append(ProgressCallback(console))
    try:
        trainer = make_trainer(
            recipe.base_directory(), recipe.trainer, cast("Any", run.data.train), output=run.folder, seed=recipe.seed,
            max_length=recipe.max_length, tasks=run.data.tasks, validation=run.data.validation or None,
            callbacks=callbacks, progress=False, built=run.built, report_to=["tensorboard"], **options,
        )  # fmt: skip
    except ValueError as error:
        raise RecipeError(f"trainer: {error}") from error
    trainer.remove_callback(PrinterCallback)
    return trainer


def _evaluation_options(run: _Run) -> dict[str, Any]:
    """When to evaluate, and by what the best weights are chosen, as transformers names it."""
    chosen = run.recipe.evaluation
    options: dict[str, Any] = {"save_total_limit": _CHECKPOINTS_KEPT, "per_device_eval_batch_size": _EVALUATION_BATCH}
    if not chosen.every or not run.data.validation:
        return options
    options |= {"eval_strategy": "steps", "eval_steps": chosen.every}
    options |= {"save_strategy": "steps", "save_steps": run.recipe.trainer.save_steps or chosen.every}
    if chosen.best == "last" and not chosen.patience:
        return options
    by_score = chosen.best == "score" and bool(run.scorer)
    return options | {
        "metric_for_best_model": METRIC if by_score else "eval_loss", "greater_is_better": by_score,
        "load_best_model_at_end": chosen.best != "last",
    }  # fmt: skip


def _finish(run: _Run, trainer: InstructionTrainer, begun: float) -> None:
    """Score what is kept, and write everything."""
    recipe, report = run.recipe, run.report
    answers = run.judged() if run.scorer else []
    report.after = scores(answers).tasks
    report.steps = trainer.state.global_step
    report.stopped_early = trainer.state.global_step < trainer.state.max_steps
    if trainer.args.load_best_model_at_end:
        report.best_step = trainer.state.best_global_step
    history = trainer.state.log_history
    last: dict[str, Any] = {}
    for entry in history:
        last |= {name: value for name, value in entry.items() if name.startswith("loss") or name == "eval_loss"}
    report.losses = {name: float(value) for name, value in last.items()}
    report.seconds = time.monotonic() - begun
    report.output = recipe.output
    trainer.write(
        recipe.output, card=model_card(recipe, report, answers), recipe=recipe.model_dump(mode="json"),
        scores={"before": report.before, "after": report.after, **report.losses},
        template_fingerprint=run.encoder.renderer.template_fingerprint,
    )  # fmt: skip
    plot(history, run.folder / "curves.png", recipe.name)
    found = {**report.to_json(), "history": history}
    (run.folder / "report.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _check_output(output: Path) -> None:
    """An adapter may replace an earlier one, but nothing else is written over."""
    from ift_serve.modeling.adapter.config import IFT_CONFIG

    if output.exists() and any(output.iterdir()):
        known = (output / IFT_CONFIG).exists() or (output / RUN_FOLDER).is_dir()
        if not known:
            raise RecipeError(f"output: {output} holds other files; name a new directory")


def _last_checkpoint(recipe: Recipe) -> str:
    from transformers.trainer_utils import get_last_checkpoint

    folder = recipe.output / RUN_FOLDER
    found = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if found is None:
        raise RecipeError(
            f"--resume: {folder} holds no checkpoint; run without --resume, and set trainer.save_steps or "
            "evaluation.every so that there will be some"
        )
    return str(found)


def _forget(folder: Path) -> None:
    """Take an earlier run's checkpoints and logs away, which would be mistaken for this one's."""
    for path in [*folder.glob("checkpoint-*"), folder / "runs"]:
        if path.is_dir():
            shutil.rmtree(path)
