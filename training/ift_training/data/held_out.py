"""Prompts of the procedural families' test split as data, so that they can be asked without this package."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from ift_training.data.procedural import draw, families
from ift_training.data.procedural.example import Example, Family


def held_out(count: int, seed: int) -> Iterator[dict[str, object]]:
    """``count`` prompts of each family, of different combinations where the family has as many.

    A prompt is ``{"key", "family", "instruction", "context", "checks"}``; keys are unique.
    """
    for name, family in families().items():
        for index, example in enumerate(_distinct(family, count, random.Random(f"{seed}/{name}"))):
            yield {
                "key": f"{name}/{index}",
                "family": name,
                "instruction": example.instruction,
                "context": example.context,
                "checks": [check.model_dump(mode="json") for check in example.checks],
            }


def write_held_out(path: Path, count: int, seed: int) -> int:
    """Write JSON Lines; how many there are."""
    rows = [json.dumps(row, ensure_ascii=False) for row in held_out(count, seed)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return len(rows)


def _distinct(family: Family, count: int, rng: random.Random) -> list[Example]:
    """Examples with prompts of their own, of few combinations where there are no more."""
    found: dict[str, Example] = {}
    for _ in range(50 * count):
        example = draw(family, "test", rng)
        found.setdefault(example.prompt, example)
        if len(found) == count:
            break
    return list(found.values())
