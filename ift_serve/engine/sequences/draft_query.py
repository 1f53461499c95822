"""What a model that guesses for another one is asked."""

from __future__ import annotations

from dataclasses import dataclass

from ift_serve.engine.sequences.step import SamplingRow


@dataclass(frozen=True, slots=True)
class DraftQuery:
    """Which tokens follow those of sequence ``number``, drawn as ``row`` draws them. ``tokens``: the live list."""

    number: int
    tokens: list[int]
    row: SamplingRow
