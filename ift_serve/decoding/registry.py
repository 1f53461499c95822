"""The strategies that a request can name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ift_serve.decoding.sample import Sample
from ift_serve.engine.core.strategy import StrategyFactory

STRATEGIES: Mapping[str, StrategyFactory] = MappingProxyType({"sample": Sample})
"""Factories by the name that ``GenerateRequest.strategy`` carries."""
