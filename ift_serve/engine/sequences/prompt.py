"""The prompt of a request, as its sequences see it. Immutable."""

from __future__ import annotations

from dataclasses import dataclass

from ift_serve.engine.sequences.step import AdaptedPrompt


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """``token_ids``: at least one. ``segment_ids``: a byte per token; empty: all template, and nobody tells them apart.

    ``root``: what the hashes of its blocks begin with; ``hashed_segments``: the segments that are part of them (empty:
    none). ``adapted``: what an adapter needs to know of it; None for the base model.
    """

    token_ids: list[int]
    segment_ids: bytes
    root: bytes
    hashed_segments: bytes = b""
    adapted: AdaptedPrompt | None = None

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.token_ids)
