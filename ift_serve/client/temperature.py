"""Sampling settings that vary from token to token. None stands for the server's default everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class AdaptiveTemperature:
    """A temperature for each token: ``scale`` times what the rule makes of ``temperature``, within min and max.

    ``greedy_below``: a temperature that comes out below it is 0. ``rule``: the head of the adapter, or the entropy
    alone with ``base`` and ``theta`` (EDT, arXiv 2403.14541).
    """

    min: float | None = None
    max: float | None = None
    scale: float | None = None
    rule: Literal["head", "entropy"] | None = None
    base: float | None = None
    theta: float | None = None
    greedy_below: float | None = None


@dataclass(frozen=True, slots=True)
class TargetProbability:
    """Draw tokens whose probability is ``target`` on average, over about 1 / (1 - ``decay``) of them (adaptive-p)."""

    target: float
    decay: float | None = None
