"""Train, validation and test by the combination asked for, so that test asks for what was never seen."""

from __future__ import annotations

import hashlib
import random
from typing import Literal

from ift_training.data.procedural.example import Example, Family

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_of(key: str) -> Split:
    """Five per cent of all combinations are validation, ten per cent test; stable over processes and versions."""
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little") % 100
    return "test" if bucket < 10 else "validation" if bucket < 15 else "train"


def draw(family: Family, split: Split, rng: random.Random) -> Example:
    """An example of the family that belongs to the split."""
    while True:
        example = family.generate(rng)
        if split_of(example.key) == split:
            return example
