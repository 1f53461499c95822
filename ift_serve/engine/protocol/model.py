"""Messages of an engine process about its model, or about why it could not start."""

from __future__ import annotations

import msgspec

from ift_serve.engine.protocol.generate import SamplingDefaults


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the engine serves, as far as the server process needs to know."""

    name: str
    path: str
    architecture: str
    fingerprint: str
    context_length: int
    vocabulary_size: int
    hidden_size: int
    layers: int
    parameters: int
    dtype: str
    device: str
    eos_ids: list[int]
    block_size: int
    total_blocks: int
    max_batch_tokens: int
    max_sequences: int
    attention_backend: str
    features: list[str] = []
    sampling_defaults: SamplingDefaults = SamplingDefaults()
    weights: str = "stored"
    """What they are in memory: the model's own, rounded to int8 or int4, or the codes of a gguf file."""
    cache_bytes: int = 0
    """What keys and values take once every block was used; of all ranks together."""
    followers: list[int] = []
    """Process ids of ranks 1 and up, where several processes compute the model; rank 0 is the engine itself."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """First message of an engine process: the model is loaded and warm."""

    model: ModelDescription


class Failed(msgspec.Struct, frozen=True, tag="start_failed"):
    """The engine process could not start; ``message`` says what to do. The process exits after it."""

    message: str
