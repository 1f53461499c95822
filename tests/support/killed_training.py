"""Trainings that count the calls made while each checkpoint is written, or die at one of them; to be run forked."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ift_training import training_loop
from ift_training.recipe import Recipe
from ift_training.run import train
from ift_training.trainer import InstructionTrainer


def train_counting(recipe: dict[str, Any], counts: Path) -> None:
    """Train to the end; write the number of calls by step."""
    found: Counter[int] = Counter()
    _watch(lambda step: found.update([step]))
    train(Recipe.parse(recipe), progress=False)
    counts.write_text(json.dumps(found))


def train_dying(recipe: dict[str, Any], step: int, call: int) -> None:
    """Train until that call within the checkpoint of that step, or until the next one, and end as by ``kill -9``."""
    left = call

    def count(now: int) -> None:
        nonlocal left
        left -= now == step
        if now > step or (now == step and left < 0):
            os.kill(os.getpid(), signal.SIGKILL)

    _watch(count)
    train(Recipe.parse(recipe), progress=False)


def train_on(recipe: dict[str, Any]) -> None:
    """Go on from the last whole checkpoint."""
    patch.object(training_loop, "plot", _no_picture).start()
    train(Recipe.parse(recipe), resume=True, progress=False)


def _no_picture(*_: Any) -> bool:
    return False


def _watch(called: Callable[[int], object]) -> None:
    """Call with the step at every call, Python's or C's, that is made while a checkpoint is written, and after it."""
    patch.object(training_loop, "plot", _no_picture).start()
    original: Any = InstructionTrainer._save_checkpoint

    def save(self: InstructionTrainer, *arguments: Any, **options: Any) -> None:
        step = self.state.global_step
        sys.setprofile(lambda frame, event, argument: called(step))
        try:
            original(self, *arguments, **options)
        finally:
            sys.setprofile(None)

    InstructionTrainer._save_checkpoint = save  # type: ignore[method-assign]
