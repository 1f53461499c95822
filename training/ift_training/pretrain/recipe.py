"""Everything that determines the embedded model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

FAMILY_WEIGHTS = {
    "case": 1.3, "reverse": 1.0, "sort": 1.5, "count": 1.0, "position": 1.0, "repeat": 0.5, "extract": 1.6,
    "table": 1.2, "arithmetic": 2.2, "arithmetic_steps": 0.3, "word_problem": 1.6, "compare": 1.2,
    "yes_no": 0.7, "classify": 0.8, "odd_one_out": 0.8, "list_items": 0.6, "bullets": 0.25, "json": 0.2,
    "commas": 0.25, "frame": 0.1, "include_word": 0.25, "avoid_word": 0.15, "story": 0.6, "combined": 0.04,
    "both_ends": 0.0, "list_shape": 0.0, "words_in_and_out": 0.0, "short_sentence": 0.0, "long_sum": 0.0,
}  # fmt: skip
"""Simple constraints are rare and several at once never occur: adapters are there to teach them."""


class Recipe(BaseModel):
    """Sizes, seeds and schedule. The same recipe on the same machine gives the same weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 1
    vocabulary: int = Field(
        default=3072, ge=300, description="tokens, 256 bytes, 6 special ones and 2 markers included"
    )
    tokenizer_examples: int = Field(default=40_000, ge=100)
    hidden: int = 192
    layers: int = 7
    heads: int = 6
    kv_heads: int = 3
    intermediate: int = 640
    context: int = 1024
    steps: int = Field(default=3600, ge=1)
    batch_tokens: int = Field(default=4096, ge=64, description="padded tokens in a step")
    warmup: int = 150
    matrix_rate: float = Field(default=3e-3, description="peak learning rate of matrices (Muon)")
    vector_rate: float = Field(default=3e-3, description="peak learning rate of embeddings and norms (AdamW)")
    final_rate: float = Field(default=0.02, description="share of the peak at the end")
    weight_decay: float = 0.05
    prompt_weight: float = Field(default=0.1, ge=0, description="loss weight of prompt tokens; answers have 1")
    thought_share: float = Field(
        default=0.4, ge=0, le=1, description="of the answers whose steps are known, with thought"
    )
    cut_share: float = Field(default=0.15, ge=0, le=1, description="of the thoughts, closed before they are over")
    evaluated: int = Field(default=100, ge=1, description="test examples a family")
