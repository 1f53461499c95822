"""The steps themselves: model, trainer, scores along the way, and everything that is written at the end."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from ift_serve.checks import PassRates
from ift_serve.text.ends import answer_ends
from ift_training.assemble import make_trainer
from ift_training.build import Built, build_recipe
from ift_training.checkpoint import read
from ift_training.data.encode import Encoder
from ift_training.data.selection import TrainingData
from ift_training.data.trained_on import TRAINED_ON, trained_on
from ift_training.evaluation.best import BestWeights
from ift_training.evaluation.callback import EdgesCallback, EpochCallback, ScoreCallback, score_metrics
from ift_training.evaluation.divergence import DivergenceCallback, diverged
from ift_training.evaluation.progress import ProgressCallback
from ift_training.evaluation.samples import SampleCallback, Samples
from ift_training.evaluation.score import Judged, Scorer, pass_rates_of
from ift_training.prepare import REPORT, RUN_FOLDER
from ift_training.progress import stage
from ift_training.recipe import Recipe, RecipeError
from ift_training.reporting.card import model_card
from ift_training.reporting.curves import plot
from ift_training.reporting.summary import TrainingReport
from ift_training.trainer import InstructionTrainer

_CHECKPOINTS_KEPT = 2
_EVALUATION_BATCH = 32
_LOGGING_STEPS = 10
_LEAST_POINTS = 20
"""Points of a curve, even of a short run."""


@dataclass(slots=True)
class Loop:
    """A recipe with what was opened for it."""

    recipe: Recipe
    encoder: Encoder
    data: TrainingData
    built: Built
    report: TrainingReport
    scorer: Scorer
    samples: Samples

    @property
    def folder(self) -> Path:
        """Where the run keeps what is no part of the adapter."""
        return self.recipe.output / RUN_FOLDER

    def judged(self) -> list[Judged]:
        """Answers of the model as it is now."""
        return self.scorer.judged(self.built.model.causal, self.built.model.components)

    def sample_answers(self) -> list[str]:
        """Answers to the sample requests, of the model as it is now."""
        return self.samples.answers(self.built.model.causal, self.built.model.components)

    def score(self) -> PassRates:
        """Shares of answers that pass, of the model as it is now."""
        return pass_rates_of(self.judged())


def run_loop(
    recipe: Recipe,
    encoder: Encoder,
    data: TrainingData,
    report: TrainingReport,
    checkpoint: Path | None,
    console: Console | None,
) -> None:
    """Train from the beginning or from a checkpoint, write the adapter, and complete the report. Raises RecipeError."""
    begun = time.monotonic()
    asked = recipe.evaluation
    limits = {"batch_size": asked.batch_size, "max_new_tokens": asked.max_new_tokens}
    scorer = Scorer(data.validation, encoder, examples=asked.examples, **limits)
    samples = Samples(data.validation, encoder, count=asked.samples, **limits)
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        # Answers need the whole model on one process.
        scorer.requests.clear()
        samples.samples.clear()
    shown = console is not None
    stage(f"loading {recipe.base}", shown=shown)
    run = Loop(recipe, encoder, data, build_recipe(recipe, data.tasks), report, scorer, samples)
    if run.scorer:
        stage(f"answering {len(scorer.requests)} validation requests before the training", shown=shown)
        run.report.before = run.score().tasks
    if run.samples:
        run.samples.keep_before(run.built.model.causal, run.built.model.components)
    trainer = _trainer(run, console)
    _measure_before(run, trainer)
    if checkpoint is not None:
        try:
            read(run.built.model, checkpoint, recipe.trainer)
        except ValueError as error:
            raise RecipeError(f"--resume: {error}") from error
    if checkpoint is None and trainer.is_world_process_zero():
        _forget(run.folder)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    stage("judging what is kept, and writing it", shown=shown)
    after = trainer.measured()
    if trainer.is_world_process_zero():
        _finish(run, trainer, begun, after)


def _measure_before(run: Loop, trainer: InstructionTrainer) -> None:
    """Losses and scores that the training begins with, for the report and as step 0 of the log."""
    # Before the steps begin, FSDP has not sharded the model yet.
    losses = {} if trainer.is_fsdp_enabled else trainer.measured()
    run.report.losses_before = losses
    found = losses | (score_metrics(PassRates(run.report.before)) if run.scorer else {})
    evaluates = bool(run.recipe.evaluation.every and run.data.validation)
    trainer.add_callback(EdgesCallback(found, trainer.log, trainer.recall_best, evaluates=evaluates))


def _trainer(run: Loop, console: Console | None) -> InstructionTrainer:
    from transformers import PrinterCallback

    recipe = run.recipe
    callbacks: list[Any] = [EpochCallback(run.data.train), DivergenceCallback()]
    scored = ScoreCallback(run.score)
    if run.scorer:
        callbacks.append(scored)
    shown = SampleCallback(run.samples, run.sample_answers, console)
    if run.samples:
        callbacks.append(shown)
    options = _evaluation_options(run)
    if console is not None:
        callbacks.append(ProgressCallback(console))
    try:
        trainer = make_trainer(
            recipe.base_directory(),
            recipe.trainer,
            cast("Any", run.data.train),
            output=run.folder,
            seed=recipe.seed,
            max_length=recipe.max_length,
            tasks=run.data.tasks,
            validation=run.data.validation or None,
            callbacks=callbacks,
            progress=False,
            built=run.built,
            report_to=["tensorboard"],
            **options,
        )
    except ValueError as error:
        raise RecipeError(f"trainer: {error}") from error
    trainer.remove_callback(PrinterCallback)
    _choose_best(run, trainer)
    scored.log = trainer.log
    shown.add_text = _text_writer(trainer)
    return trainer


def _text_writer(trainer: InstructionTrainer) -> Callable[[str, str, int], None]:
    """Writes texts where transformers writes the numbers: it opens TensorBoard's file when the steps begin."""
    from transformers.integrations import TensorBoardCallback

    def add_text(tag: str, text: str, step: int) -> None:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_text(tag, text, step)

    return add_text


def _evaluation_options(run: Loop) -> dict[str, Any]:
    """When to evaluate and to save, as transformers names it."""
    chosen = run.recipe.evaluation
    options: dict[str, Any] = {
        "save_total_limit": _CHECKPOINTS_KEPT,
        "per_device_eval_batch_size": _EVALUATION_BATCH,
        "logging_steps": max(1, min(_LOGGING_STEPS, _steps(run) // _LEAST_POINTS)),
    }
    if not chosen.every or not run.data.validation:
        return options
    options |= {"eval_strategy": "steps", "eval_steps": chosen.every}
    return options | {"save_strategy": "steps", "save_steps": run.recipe.trainer.save_steps or chosen.every}


def _choose_best(run: Loop, trainer: InstructionTrainer) -> None:
    """Have the trainer compare evaluations, if there are any and something depends on them."""
    chosen = run.recipe.evaluation
    if not chosen.every or not run.data.validation or (chosen.best == "last" and not chosen.patience):
        return
    trainer.best = BestWeights(by_score=chosen.best == "score" and bool(run.scorer))
    trainer.patience = chosen.patience
    # Set afterwards: transformers wants checkpoints at evaluations only, while here each best one is saved at once.
    trainer.args.load_best_model_at_end = chosen.best != "last"


def _steps(run: Loop) -> int:
    """Optimiser steps on one process."""
    settings = run.recipe.trainer
    an_epoch = len(run.data.train) / (settings.batch_size * settings.accumulation)
    return settings.max_steps or int(settings.epochs * an_epoch)


def _finish(run: Loop, trainer: InstructionTrainer, begun: float, losses: dict[str, float]) -> None:
    """Score the kept weights, and write everything. ``losses``: validation losses of these weights."""
    recipe, report = run.recipe, run.report
    if not trainer.is_finite():
        raise diverged(trainer.state.global_step)
    answers = run.judged() if run.scorer else []
    report.after = pass_rates_of(answers).tasks
    if run.samples:
        run.samples.keep_after(run.built.model.causal, run.built.model.components)
    report.samples = [sample.to_json() for sample in run.samples.samples]
    report.steps = trainer.state.global_step
    report.stopped_early = trainer.state.global_step < trainer.state.max_steps
    if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint is not None:
        report.best_step = trainer.state.best_global_step
    history = trainer.state.log_history
    report.losses = _training_losses(history, report.written_step) | losses
    report.seconds = time.monotonic() - begun
    report.output = recipe.output
    trainer.write(
        recipe.output,
        card=model_card(recipe, report, answers),
        recipe=recipe.model_dump(mode="json") | {TRAINED_ON: trained_on(run.data.report, _families(recipe))},
        scores={"before": report.before, "after": report.after, **report.losses},
        template_fingerprint=run.encoder.renderer.template_fingerprint,
        end_ids=answer_ends(run.encoder.renderer),
    )
    plot(history, run.folder / "curves.png", recipe.name, report.written_step)
    found = {**report.to_json(), "history": history}
    (run.folder / REPORT).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _families(recipe: Recipe) -> list[str]:
    return [name for source in recipe.sources for name in source.procedural or ()]


def _training_losses(history: list[dict[str, Any]], step: int) -> dict[str, float]:
    """What was logged of the training last, up to the step whose weights are written."""
    last: dict[str, float] = {}
    for entry in history:
        if "loss" in entry and entry["step"] <= step:
            last = {n: float(v) for n, v in entry.items() if n.startswith(("loss", "task_loss_", "task_weight_"))}
    return last


def _forget(folder: Path) -> None:
    """Take an earlier run's checkpoints, logs and report away, which would be mistaken for this one's."""
    for name in (REPORT, "curves.png"):
        (folder / name).unlink(missing_ok=True)
    for path in [*folder.glob("checkpoint-*"), folder / "runs"]:
        if path.is_dir():
            shutil.rmtree(path)
