"""Sampling settings that vary from token to token: adaptive temperature and adaptive-p."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class TemperatureRule(StrEnum):
    """What chooses the temperature of a token: the head of the request's adapter, or the entropy alone."""

    HEAD = "head"
    ENTROPY = "entropy"


class AdaptiveTemperature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A temperature for each token, ``scale`` times what the rule makes of the request's T_0, within min and max.

    HEAD: ``T_0 exp(ln 3 tanh(u))``, u by the adapter's temperature head. ENTROPY: ``T_0 base^(theta / H)``, H being the
    entropy in nats (EDT, arXiv 2403.14541). Either way ``T_0 = 0`` is greedy whatever ``min`` says.

    ``greedy_below``: a temperature that comes out below it is 0, so the most likely token is taken. A head reaches no
    lower than a third of T_0, where what is unlikely is still drawn now and then.
    """

    min: float = 0.0
    max: float = 10.0
    greedy_below: float = 0.0
    scale: float = 1.0
    rule: TemperatureRule = TemperatureRule.HEAD
    base: float = 0.8
    theta: float = 0.1


class TargetProbability(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """adaptive-p, as llama.cpp has it: draw tokens whose probability is ``target`` on average.

    ``decay``: of the average's weights, in 0 .. 0.99; it looks back about ``1 / (1 - decay)`` tokens.
    """

    target: float
    decay: float = 0.9
