"""Configuration of the instruction-aware components: which are on, and how wide they are."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Width = Annotated[int, Field(ge=0, le=65536)]
ENCODER_HEADS = 4
_HEADS = ("temperature_head", "sequence_temperature", "mode_classifier", "adherence_head")


class BaseShape(BaseModel):
    """The dimensions of the base model that components depend on. ``heads`` are those of each layer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden_size: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    vocabulary_size: int = Field(gt=0)


class ComponentsConfig(BaseModel):
    """Every component is off by default; a number is its width or rank, 0 for off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    segment_embedding: bool = Field(default=False, description="a vector for each segment, added to the embeddings")
    instruction_embedding: Width = Field(default=0, description="rank of a second embedding of instruction tokens")
    instruction_encoder: Width = Field(default=0, description="width of the pooled instruction vector c; 128 is usual")
    two_stream: Width = Field(default=0, description="width of the fusion of c into the embeddings")
    attention_bias: bool = Field(default=False, description="bias of instruction keys, a layer and head")
    attention_gain: bool = Field(default=False, description="gain of instruction tokens' attention, a layer and head")
    instruction_gate: Width = Field(default=0, description="rank of the gate that lets c in after each layer")
    reasoning_pathways: Width = Field(default=0, description="width of three parallel paths before the head")
    temperature_head: Width = Field(default=0, description="width of the head that predicts the temperature")
    sequence_temperature: Width = Field(
        default=0, description="width of the head that chooses one temperature for a request, from its instruction"
    )
    mode_classifier: Width = Field(
        default=0, description="width of the head that chooses how a request is reasoned about, from its instruction"
    )
    adherence_head: Width = Field(default=0, description="width of the head that judges a response")

    @model_validator(mode="after")
    def _check(self) -> ComponentsConfig:
        for name in ("two_stream", "instruction_gate", "sequence_temperature", "mode_classifier"):
            if getattr(self, name) and not self.instruction_encoder:
                raise ValueError(f"{name}: needs the pooled instruction; set instruction_encoder (128 is usual)")
        if self.instruction_encoder % ENCODER_HEADS:
            raise ValueError(f"instruction_encoder: {self.instruction_encoder} is not a multiple of {ENCODER_HEADS}")
        if self.reasoning_pathways % 3:
            raise ValueError(f"reasoning_pathways: {self.reasoning_pathways} does not divide into three paths")
        return self

    @property
    def names(self) -> list[str]:
        """The components that are on."""
        return [name for name in type(self).model_fields if getattr(self, name)]

    @property
    def changes_cache(self) -> bool:
        """Whether keys and values differ from the base model's."""
        after_the_cache = {"instruction_encoder", "reasoning_pathways", *_HEADS}
        return bool(set(self.names) - after_the_cache)

    @property
    def changes_hidden(self) -> bool:
        """Whether hidden states are changed by more than the attention's bias, which is the kernels' own."""
        besides = {"instruction_encoder", "attention_bias", *_HEADS}
        return bool(set(self.names) - besides)

    @property
    def uses_segments(self) -> bool:
        """Whether keys and values depend on the segments of the tokens."""
        return self.changes_cache

    @property
    def uses_instruction_vector(self) -> bool:
        """Whether keys and values depend on the whole instruction, through c."""
        through_c = self.two_stream or self.instruction_gate or self.attention_bias
        return bool(self.instruction_encoder and through_c)
