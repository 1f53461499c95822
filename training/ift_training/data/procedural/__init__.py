"""Families of instructions that are generated, each with the checks that judge any response."""

from ift_training.data.procedural.example import KINDS, Example, Family
from ift_training.data.procedural.registry import families, family
from ift_training.data.procedural.splits import SPLITS, draw, split_of

__all__ = ["KINDS", "SPLITS", "Example", "Family", "draw", "families", "family", "split_of"]
