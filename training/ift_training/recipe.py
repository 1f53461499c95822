"""A training run as a file: the base, the data, the trainer's settings, and how progress is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ift_training.base_recipe import BaseRecipe, RecipeError, apply_override
from ift_training.settings import TrainerSettings

__all__ = ["EvaluationSettings", "Recipe", "RecipeError", "apply_override"]

_USUAL_RANK = 64
"""The largest rank that a server takes unless it is told otherwise."""


class EvaluationSettings(BaseModel):
    """Answers to validation requests, judged by the checkers, while the training runs."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    every: int = Field(default=100, ge=0, description="steps between evaluations; 0: at the end only")
    examples: int = Field(default=16, ge=1, le=10_000, description="requests of each task, of the validation split")
    max_new_tokens: int = Field(default=64, ge=1, le=4096, description="longest answer")
    batch_size: int = Field(default=64, ge=1, description="answers generated at once")
    samples: int = Field(
        default=2,
        ge=0,
        le=32,
        description="answers shown at each evaluation beside the one before the training; 0: none",
    )
    patience: int = Field(default=0, ge=0, description="stop after so many evaluations without a better one; 0: never")
    best: Literal["score", "loss", "last"] = Field(
        default="score", description="which weights are written: best by the checkers, by validation loss, or the last"
    )


class Recipe(BaseRecipe):
    """Everything that a training run depends on."""

    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings, description="scores while it runs")
    trainer: TrainerSettings = Field(default_factory=TrainerSettings, description="the adapter, its losses, the steps")

    @model_validator(mode="after")
    def _weights_are_of_tasks(self) -> Self:
        weights = self.trainer.losses.task_weights
        if isinstance(weights, dict) and (unknown := sorted(set(weights) - set(self.tasks))):
            raise ValueError(
                f"trainer.losses.task_weights: {unknown[0]!r} is no task; there are {', '.join(self.tasks)}"
            )
        return self

    @model_validator(mode="after")
    def _stops_by_something(self) -> Self:
        nothing_held_out = not self.validation.share and not self.validation.sources
        if self.evaluation.patience and (not self.evaluation.every or nothing_held_out):
            field = "validation.share" if self.evaluation.every else "evaluation.every"
            raise ValueError(f"evaluation.patience: needs evaluations to wait for; give {field} a value above 0")
        return self

    def notes(self) -> list[str]:
        """What is allowed and may yet not be meant."""
        trainer = self.trainer
        found = [f"trainer.components.{name}: no loss of this recipe trains it" for name in trainer.unreached]
        ranks = [trainer.lora.rank, *trainer.lora.rank_pattern.values()]
        if max(ranks) > _USUAL_RANK:
            found.append(f"trainer.lora.rank: a server takes {max(ranks)} with --max-lora-rank {max(ranks)} only")
        return found

    def look_in(self, folder: Path) -> None:
        """See :class:`BaseRecipe`."""
        super().look_in(folder)
        ewc = self.trainer.losses.ewc
        if ewc.fisher is not None:
            ewc.fisher = folder / ewc.fisher.expanduser()
