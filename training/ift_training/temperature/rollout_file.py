"""Answers on disk, kept as they come: whatever ends a run, the next one goes on from the last whole line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from ift_training.base_recipe import RecipeError

Place = tuple[int, int]
"""Number of the prompt, number of the temperature."""
Answers = list[list[int]]
"""Token ids of each answer, with the token that ended it."""


class RolloutFile:
    """JSON Lines: the key of the rollout's settings, then a line a prompt and temperature with its answers."""

    def __init__(self, path: Path, key: str) -> None:
        """Open or begin it. Raises RecipeError where it holds answers of another recipe, OSError."""
        self.path = path
        self.known: dict[Place, Answers] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._read(key) if path.exists() else 0
        self._file: IO[bytes] = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(whole)
        self._file.seek(whole)
        if not whole:
            self._write({"key": key})

    def _read(self, key: str) -> int:
        """Read the complete lines; returns their length in bytes."""
        good = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                try:
                    found = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    found = None
                if found is None:
                    break
                if not number and found.get("key") != key:
                    raise RecipeError(
                        f"--resume: {self.path} holds answers of other prompts, temperatures or another base; begin "
                        "anew with --overwrite"
                    )
                if number:
                    self.known[found["prompt"], found["temperature"]] = found["answers"]
                good += len(line)
        return good

    def add(self, place: Place, answers: Answers) -> None:
        """Keep the answers of one prompt at one temperature."""
        self.known[place] = answers
        self._write({"prompt": place[0], "temperature": place[1], "answers": answers})

    def missing(self, prompts: int, temperatures: int) -> Iterable[Place]:
        """What is not known yet, prompt by prompt."""
        every = ((p, t) for p in range(prompts) for t in range(temperatures))
        return [place for place in every if place not in self.known]

    def _write(self, fields: dict[str, object]) -> None:
        self._file.write(json.dumps(fields, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Nothing is written any more."""
        self._file.close()
