"""Trainer settings: the low-rank part, components, losses, optimisation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ift_serve.modeling.components.config import ComponentsConfig

_USES_OF_C = {"two_stream", "attention_bias", "instruction_gate", "adherence_head"}
"""Components that the instruction vector goes into."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class LoraSettings(_Settings):
    """The low-rank part; PEFT's LoRA."""

    rank: int = Field(default=16, ge=0, le=256, description="0: no low-rank part, components only")
    alpha: float = Field(default=32.0, gt=0, description="the change is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of the inputs of the low-rank part")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(rank), which suits large ranks")
    dora: bool = Field(default=False, description="weight decomposition (DoRA): direction and length apart")
    targets: list[str] | Literal["all-linear"] = Field(
        default="all-linear", description="names of linear layers, such as q_proj, or all-linear"
    )
    rank_pattern: dict[str, Annotated[int, Field(ge=1, le=256)]] = Field(
        default_factory=dict, description="ranks of modules whose names end so; regular expressions"
    )
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="alphas of modules whose names end so; regular expressions"
    )


class EwcSettings(_Settings):
    """Elastic weight consolidation (Kirkpatrick et al. 2017, eq. 3): what mattered for a previous task moves less."""

    weight: float = Field(default=0.0, ge=0, description="of the penalty; 0: off")
    fisher: Path | None = Field(
        default=None, description="file that `ift-serve train fisher` wrote; training begins at the weights in it"
    )

    @model_validator(mode="after")
    def _has_file(self) -> Self:
        if self.weight and self.fisher is None:
            raise ValueError("fisher: name the file that `ift-serve train fisher` wrote")
        return self


class LossSettings(_Settings):
    """Weights of the parts of the loss; each is logged by itself."""

    next_token: float = Field(default=1.0, ge=0, description="cross entropy of the targets, by token")
    instruction: float = Field(
        default=0.0, ge=0, description="adherence head: the true response against another's or a violating one"
    )
    representation: float = Field(
        default=0.0, ge=0, description="distance of the instruction vector to a projection of the response's states"
    )
    task_weights: dict[str, Annotated[float, Field(ge=0)]] | Literal["learned"] | None = Field(
        default=None, description="weights by task name, or `learned` ones (log-variances)"
    )
    ewc: EwcSettings = Field(default_factory=EwcSettings, description="protects what a previous task learned")


class MaskingSettings(_Settings):
    """Hides a share of the instruction's tokens, others in each epoch."""

    rate: float = Field(default=0.0, ge=0, le=0.9, description="share of instruction tokens; 0: off")
    mode: Literal["replace", "drop"] = Field(default="replace", description="by a mask token, or left out")
    token: int | None = Field(default=None, ge=0, description="id of the mask token; none: the tokenizer's, or padding")


class TrainerSettings(_Settings):
    """The adapter, its losses and the steps."""

    lora: LoraSettings = Field(default_factory=LoraSettings)
    components: ComponentsConfig = Field(
        default_factory=ComponentsConfig, description="instruction-aware components; all are off by default"
    )
    losses: LossSettings = Field(default_factory=LossSettings)
    masking: MaskingSettings = Field(default_factory=MaskingSettings)
    learning_rate: float = Field(default=2e-4, gt=0, description="of the low-rank part")
    component_learning_rate: float = Field(default=1e-3, gt=0, description="of the components")
    epochs: float = Field(default=1.0, gt=0, le=1_000_000, description="passes over the data")
    max_steps: int = Field(default=0, ge=0, description="optimiser steps; 0: what the epochs come to")
    batch_size: int = Field(default=8, ge=1, description="examples of one forward pass, on each process")
    accumulation: int = Field(default=1, ge=1, description="forward passes of one optimiser step")
    warmup: float = Field(default=0.03, ge=0, le=0.5, description="share of the steps")
    schedule: Literal["constant", "linear", "cosine"] = Field(default="cosine", description="after the warm-up")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's")
    max_grad_norm: float = Field(default=1.0, ge=0, description="gradients are clipped to it; 0: off")
    precision: Literal["float32", "bfloat16"] = Field(default="float32", description="of the forward pass")
    load_in_4bit: bool = Field(default=False, description="keep the base in 4 bits; needs bitsandbytes and a GPU")
    gradient_checkpointing: bool = Field(default=False, description="recompute instead of keeping activations")
    packing: bool = Field(default=False, description="several examples in one row instead of padding")
    save_steps: int = Field(
        default=0,
        ge=0,
        description="steps between checkpoints, beside the best one, which is always saved; 0: at evaluations only",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        components, losses = self.components, self.losses
        if not self.lora.rank and not components.names:
            raise ValueError("lora.rank: nothing would be trained; give it a rank, or turn a component on")
        if losses.instruction and not components.adherence_head:
            raise ValueError(
                "losses.instruction: needs the adherence head; set components.adherence_head (64 is usual)"
            )
        if losses.representation and not components.instruction_encoder:
            raise ValueError("losses.representation: needs c; set components.instruction_encoder (128 is usual)")
        if not self.lora.rank and not (set(components.names) - set(self.unreached)):
            raise ValueError(
                f"components: no loss reaches {', '.join(self.unreached)}, so nothing would be trained; give lora a "
                "rank, turn another component on, or give losses.instruction or losses.representation a weight"
            )
        return self

    @property
    def unreached(self) -> list[str]:
        """Components that are on and that no loss has a gradient for."""
        components, losses = self.components, self.losses
        reached = set(components.names) - {"temperature_head", "sequence_temperature", "mode_classifier"}
        if not losses.instruction:
            reached -= {"adherence_head"}
        if not (losses.representation or reached & _USES_OF_C):
            reached -= {"instruction_encoder"}
        return [name for name in components.names if name not in reached]
