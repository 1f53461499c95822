"""Scores at every evaluation, as a metric that decides which weights are the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ift_serve.checks import PassRates
from ift_training.data.mixture import ExampleDataset
from ift_training.evaluation.best import METRIC


class ScoreCallback(TrainerCallback):  # type: ignore[misc]
    """Adds ``eval_score`` (mean over tasks) and ``eval_score_TASK`` to the metrics of an evaluation.

    Must stand before whatever reads the metrics, such as early stopping. ``log`` is where the scores are noted, the
    trainer's own once there is one.
    """

    def __init__(self, score: Callable[[], PassRates]) -> None:
        self._score = score
        self.log: Callable[[dict[str, float]], None] = lambda scores: None

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, Any], **_: Any
    ) -> None:
        """Ask, judge, and write the result where the losses are."""
        scores = score_metrics(self._score())
        metrics.update(scores)
        self.log(dict(scores))


def score_metrics(found: PassRates) -> dict[str, float]:
    """Scores under the names that they have in logs."""
    return {METRIC: found.mean, **{f"{METRIC}_{task}": share for task, share in found.tasks.items()}}


class EdgesCallback(TrainerCallback):  # type: ignore[misc]
    """Logs what was measured before the training as step 0, and has the last step evaluated, whatever its number."""

    def __init__(
        self,
        before: dict[str, float],
        log: Callable[[dict[str, float]], None],
        recall: Callable[[], None],
        *,
        evaluates: bool,
    ) -> None:
        self._before = before
        self._log = log
        self._recall = recall
        self._evaluates = evaluates

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A resumed run has its step 0 in its log already, and evaluations that later ones are compared with."""
        self._recall()
        if self._before and not state.global_step:
            self._log(dict(self._before))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The last step."""
        if self._evaluates and state.global_step >= state.max_steps:
            control.should_evaluate = True


class EpochCallback(TrainerCallback):  # type: ignore[misc]
    """Tells the dataset which epoch it is; with several processes nothing else does."""

    def __init__(self, dataset: ExampleDataset) -> None:
        self._dataset = dataset

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """``state.epoch`` is a fraction when a run is resumed."""
        self._dataset.set_epoch(math.floor((state.epoch or 0.0) + 1e-6))
