"""Recipes of trainings that take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def small_recipe(base: Path, output: Path, **parts: Any) -> dict[str, Any]:
    """A few steps on two families; ``parts`` change or add to the fields of a part, or take the place of a value."""
    found: dict[str, Any] = {
        "base": str(base),
        "output": str(output),
        "max_length": 200,
        "name": "tiny",
        "sources": [{"procedural": ["frame", "repeat"], "count": 24}],
        "validation": {"share": 0.25},
        "evaluation": {"every": 2, "examples": 2, "max_new_tokens": 4},
        "trainer": {"batch_size": 4, "max_steps": 4, "learning_rate": 1e-2, "lora": {"rank": 4}},
    }
    for name, value in parts.items():
        found[name] = {**found[name], **value} if isinstance(found.get(name), dict) else value
    return found
