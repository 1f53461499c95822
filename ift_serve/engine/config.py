"""Configuration of the engine: what it serves and what it may use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(gt=0)]


class EngineConfig(BaseModel):
    """Everything an engine process needs to start. Crosses the process boundary as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="directory of a transformers model, or a hub id")
    model_name: str = Field(default="", description="name shown to clients; empty: the last part of `model`")
    chat_template: str | None = Field(
        default=None, description="name of one of the tokenizer's chat templates, whose markers strategies know"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    weights: Literal["auto", "int8", "int4"] = Field(
        default="auto", description="bits of the weights in memory; auto: as they are stored"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count | None = Field(default=None, description="compute threads; None: the cores this process may use")
    block_size: Count | None = Field(
        default=None, description="tokens in a cache block, a multiple of 16; None: 16 on the CPU, 64 on a GPU"
    )
    cache_bytes: Count | None = Field(default=None, description="memory for keys and values; None: automatic")
    total_blocks: Count | None = Field(default=None, description="cache blocks; overrides `cache_bytes`")
    max_batch_tokens: Count = Field(default=512, description="tokens computed in one step")
    max_sequences: Count = Field(default=64, description="sequences that run at once")
    max_waiting: Count = Field(
        default=256, description="requests of one caller that wait, twice as many of all; past it new ones are refused"
    )
    prefix_caching: bool = True
    adapter_slots: Count = Field(default=32, description="adapters that requests use at once")
    max_lora_rank: Annotated[int, Field(gt=0, le=256)] = Field(default=64, description="largest rank that is loaded")
    max_adapters: Count = Field(default=1024, description="adapters in host memory at once")
    max_adapter_bytes: Count | None = Field(
        default=None, description="host memory of loaded adapters; None: half of what the model and its cache leave"
    )
    evict_adapters: bool = Field(
        default=True,
        description="past these bounds the adapter unused for longest leaves the memory, and is read again when a "
        "request names it; otherwise loads are refused",
    )
    kept_adapter_bytes: Annotated[int, Field(ge=0)] = Field(
        default=8 * 2**30,
        description="disk for copies of loaded adapters, from which evicted ones are read again, and all by a "
        "restarted engine",
    )
    trusted_keys: str | None = Field(
        default=None,
        description="file or directory of minisign's public keys: adapters are loaded only with a signature of one",
    )
    tensor_parallel: Count = Field(
        default=1, description="processes that compute the model together, each with a part of its heads and weights"
    )
    speculation: Literal["off", "lookup", "draft"] = Field(
        default="off",
        description="what guesses tokens that a step computes before they are drawn: nothing, lookup in the text so "
        "far, or beside that the draft model; no answer depends on it",
    )
    draft_model: str | None = Field(
        default=None, description="directory or hub id of a small model with the same tokens, for speculation by draft"
    )
    attention_backend: Literal["auto", "triton", "cpu", "reference"] = Field(
        default="auto", description="kernels: auto follows the device; the others are for debugging"
    )
    cache_dtype: Literal["auto", "fp8"] = Field(
        default="auto", description="of keys and values: the model's, or fp8 (e4m3), which takes a byte each, on a GPU"
    )
    batch_invariant: bool = Field(
        default=False,
        description="an answer has the same bits whatever else is computed beside it, on a GPU too, where that takes "
        "slower kernels; what cannot be so is refused",
    )
    cuda_graphs: bool = Field(default=True, description="replay decode steps as CUDA graphs")
    context_length: Count | None = Field(default=None, description="tokens of prompt and answer; None: the model's")
    patience: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=15.0, description="seconds without progress after which an engine, or an adapter's loading, is ended"
    )
    profile: str | None = Field(default=None, description="directory for traces of steps, written when asked for")
    profile_steps: Count = Field(default=20, description="steps in a trace")
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> EngineConfig:
        if self.block_size is not None and self.block_size % 16:
            raise ValueError(f"block_size: {self.block_size} is not a multiple of 16")
        if self.max_sequences > self.max_batch_tokens:
            raise ValueError(
                f"max_sequences: {self.max_sequences} sequences cannot decode in {self.max_batch_tokens} "
                "tokens a step; raise max_batch_tokens"
            )
        if self.tensor_parallel > 1:
            if self.speculation != "off":
                raise ValueError(f"speculation: {self.speculation} is not done with tensor_parallel; choose off")
            if self.weights != "auto":
                raise ValueError(f"weights: {self.weights} are not divided by tensor_parallel; choose auto")
        if self.batch_invariant and self.attention_backend == "reference":
            raise ValueError("batch_invariant: the reference backend computes with plain products; choose auto")
        if (self.speculation == "draft") != (self.draft_model is not None):
            raise ValueError("draft_model: speculation by draft, and no other, needs the directory of a model")
        return self
