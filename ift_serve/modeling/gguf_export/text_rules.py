"""Pre-tokenizer rules, in GGUF's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TextRules:
    """``kind``: GGUF's name of the algorithm, ``gpt2`` or ``llama``. ``splits``: its name of the pre-tokenizer.

    merges: pairs in order, of ``gpt2``; scores: by token, of ``llama``. adds_space: whether a space is put before a
    text, None where the algorithm never does. notes: texts for which readers of GGUF find other tokens, a sentence
    each.
    """

    kind: str
    splits: str
    merges: list[str] = field(default_factory=list)
    scores: dict[str, float] | None = None
    adds_space: bool | None = None
    notes: list[str] = field(default_factory=list)


def merge_pairs(model: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The merges of a ``tokenizer.json``, whichever of its two ways of writing them it uses."""
    return [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
