"""Generators draw on from where they were saved."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from ift_training.randomness import load_random, save_random


def _draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.random()),
        float(np.random.normal()),
        *torch.rand(2).tolist(),
    ]


def test_every_generator_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    # The second draw of a normal number comes from what the first left over, which is part of the state.
    _draw()
    save_random(tmp_path, 3)
    expected = [_draw() for _ in range(4)]
    assert load_random(tmp_path, 3)
    assert [_draw() for _ in range(4)] == expected


def test_a_process_that_was_not_there_before_has_nothing_to_load(tmp_path: Path) -> None:
    save_random(tmp_path, 0)
    assert not load_random(tmp_path, 1)
