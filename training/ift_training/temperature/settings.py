"""A temperature training as a file: the head, its rollouts, their reward, the objective, the steps, the calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ift_serve.modeling.components.config import ENCODER_HEADS, ComponentsConfig
from ift_serve.modeling.components.heads import LARGEST_FACTOR
from ift_training.base_recipe import BaseRecipe

Grain = Literal["token", "sequence"]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class HeadSettings(_Settings):
    """The head: how often it chooses, how wide it is, what it starts from."""

    grain: Grain = Field(
        default="token", description="a temperature for each token, or one for the sequence from its instruction"
    )
    width: int = Field(default=32, ge=1, le=4096, description="features of the head")
    instruction_encoder: int = Field(
        default=64,
        ge=0,
        le=4096,
        multiple_of=ENCODER_HEADS,
        description="width of the pooled instruction vector, which is drawn at random and not trained; 0: none",
    )
    temperature: float = Field(
        default=1.0, ge=0.05, le=5, description="T_0: the head multiplies it by 1/3 to 3, and begins at 1"
    )
    greedy_below: float = Field(
        default=0.0,
        ge=0,
        le=5,
        description="serve temperatures below it as 0, as requests with `adaptive.greedy_below` have it; 0: none",
    )

    @model_validator(mode="after")
    def _sees_something(self) -> Self:
        if self.grain == "sequence" and not self.instruction_encoder:
            raise ValueError("instruction_encoder: the sequence's head sees nothing else; 64 is usual")
        return self

    @property
    def components(self) -> ComponentsConfig:
        """As an adapter's configuration has it."""
        name = "temperature_head" if self.grain == "token" else "sequence_temperature"
        return ComponentsConfig.model_validate({"instruction_encoder": self.instruction_encoder, name: self.width})


class RolloutSettings(_Settings):
    """Answers that are drawn from the engine at fixed temperatures, to learn from and to choose by."""

    prompts: int = Field(default=128, ge=1, le=1_000_000, description="different prompts to learn from")
    held_out: int = Field(
        default=64,
        ge=2,
        le=1_000_000,
        description="prompts set apart: half of them choose the step that is written, half are for the card",
    )
    samples: int = Field(default=8, ge=2, le=1024, description="answers to each prompt at each temperature")
    temperatures: list[Annotated[float, Field(gt=0)]] = Field(
        default=[0.4, 0.8, 1.2, 1.8], min_length=1, max_length=16, description="within 1/3 to 3 times T_0"
    )
    max_new_tokens: int = Field(default=64, ge=1, le=65536, description="longest answer")
    in_flight: int = Field(default=16, ge=1, le=256, description="requests that the engine has at once")


class RewardSettings(_Settings):
    """What an answer is worth."""

    verifier: str = Field(
        default="checks",
        pattern=r"^(checks|exact|[A-Za-z_]\w*:[A-Za-z_]\w*)$",
        description="`checks`: 1 if all of the record's checks pass; `exact`: 1 if it is the reference; or "
        "`module:function`, called with instruction, answer and reference, from `directory`",
    )
    directory: Path | None = Field(default=None, description="the only place where `module` is looked for")
    novelty: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict,
        description="by task, the part of the reward that an answer loses as far as other answers to its prompt, drawn "
        "alike, hold the same pairs of words",
    )

    @property
    def is_callable(self) -> bool:
        """Whether one's own function judges."""
        return ":" in self.verifier

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if self.is_callable and self.directory is None:
            raise ValueError(f"directory: say where {self.verifier.split(':')[0]}.py is; nothing else is imported")
        return self


class ObjectiveSettings(_Settings):
    """The policy gradient."""

    ratio: Literal["trajectory", "token"] = Field(
        default="trajectory",
        description="answers were drawn at other temperatures than the head's: weigh whole answers by how probable the "
        "head makes them (exact), or each token by itself (less noise on long answers, blind to where they led)",
    )
    largest_weight: float = Field(default=8.0, ge=1, description="weights above it are cut to it")
    pull: float = Field(default=0.01, ge=0, description="of (log T / T_0)^2, the mean over tokens")


class LearningSettings(_Settings):
    """The steps."""

    steps: int = Field(default=300, ge=1, le=1_000_000, description="optimiser steps")
    prompts: int = Field(default=32, ge=1, description="prompts of a step, with all of their answers")
    learning_rate: float = Field(default=3e-3, gt=0, description="AdamW's")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's")
    max_grad_norm: float = Field(default=1.0, gt=0, description="gradients are clipped to it")
    every: int = Field(default=20, ge=1, description="steps between estimates on held-out prompts")


class CalibrationSettings(_Settings):
    """A second temperature, for confidences only (Guo et al. 2017): fitted by likelihood on held-out references."""

    tokens: int = Field(default=4096, ge=0, description="held-out tokens, half to fit and half to judge by; 0: off")
    bins: int = Field(default=15, ge=2, le=100, description="of the reliability diagram")


class ModeSettings(_Settings):
    """The classifier behind `reasoning.auto`: no thought, a trace, or branches, by the instruction."""

    width: int = Field(default=32, ge=1, le=4096, description="features of the classifier")
    token_cost: float = Field(
        default=0.001, ge=0, le=1, description="reward that a token costs, thoughts and hidden branches included"
    )
    budget: int = Field(default=128, ge=1, le=65536, description="tokens of thought of a trace")
    branches: int = Field(default=5, ge=1, le=20, description="first tokens that branches begin with")
    steps: int = Field(default=300, ge=0, le=1_000_000, description="optimiser steps, each over all prompts")
    learning_rate: float = Field(default=0.01, gt=0, description="AdamW's")


class TemperatureRecipe(BaseRecipe):
    """Everything that a temperature training depends on."""

    head: HeadSettings = Field(default_factory=HeadSettings, description="what is trained")
    rollouts: RolloutSettings = Field(default_factory=RolloutSettings, description="what it learns from")
    reward: RewardSettings = Field(default_factory=RewardSettings, description="what an answer is worth")
    objective: ObjectiveSettings = Field(default_factory=ObjectiveSettings, description="the policy gradient")
    learning: LearningSettings = Field(default_factory=LearningSettings, description="the steps")
    modes: ModeSettings | None = Field(
        default=None, description="train the classifier behind `reasoning.auto` too; none: off"
    )
    calibration: CalibrationSettings = Field(
        default_factory=CalibrationSettings, description="the temperature of confidences"
    )

    @property
    def components(self) -> ComponentsConfig:
        """Of the adapter that is written."""
        head = self.head.components
        if self.modes is None:
            return head
        return ComponentsConfig.model_validate({**head.model_dump(), "mode_classifier": self.modes.width})

    @model_validator(mode="after")
    def _classifies_by_the_instruction(self) -> Self:
        if self.modes is not None and not self.head.instruction_encoder:
            raise ValueError("head.instruction_encoder: the classifier of `modes` sees nothing else; 64 is usual")
        return self

    @model_validator(mode="after")
    def _reaches_the_rollouts(self) -> Self:
        initial = self.head.temperature
        lowest, highest = initial / LARGEST_FACTOR, initial * LARGEST_FACTOR
        for temperature in self.rollouts.temperatures:
            if not lowest * (1 - 1e-9) <= temperature <= highest * (1 + 1e-9):
                raise ValueError(
                    f"rollouts.temperatures: {temperature:g} is outside {lowest:.3g} to {highest:.3g}, which the head "
                    f"reaches from head.temperature {initial:g}"
                )
        if len(set(self.rollouts.temperatures)) < len(self.rollouts.temperatures):
            raise ValueError("rollouts.temperatures: one is given twice; raise rollouts.samples instead")
        return self

    @model_validator(mode="after")
    def _novelty_is_of_tasks(self) -> Self:
        if unknown := sorted(set(self.reward.novelty) - set(self.tasks)):
            raise ValueError(f"reward.novelty: {unknown[0]!r} is no task; there are {', '.join(self.tasks)}")
        return self

    @model_validator(mode="after")
    def _holds_something_out(self) -> Self:
        if not self.validation.share and not self.validation.sources:
            raise ValueError(
                "validation.share: give it a value above 0; the written step is chosen on held-out prompts"
            )
        return self

    def look_in(self, folder: Path) -> None:
        """See :class:`BaseRecipe`."""
        super().look_in(folder)
        if self.reward.directory is not None:
            self.reward.directory = folder / self.reward.directory.expanduser()
