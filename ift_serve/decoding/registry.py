"""The strategies that a request can name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.sample import Sample
from ift_serve.engine.core.strategy import Strategies, Strategy, StrategyFactory
from ift_serve.engine.protocol.generate import GenerateRequest

STRATEGIES: Mapping[str, StrategyFactory] = MappingProxyType({"sample": Sample})
"""Those that need to know nothing of the model, by the name that ``GenerateRequest.strategy`` carries."""
ContextualFactory = Callable[[GenerateRequest, StrategyContext], Strategy]
CONTEXTUAL: Mapping[str, ContextualFactory] = MappingProxyType({})
"""Those that read the model's text or markers."""


def strategies(context: StrategyContext) -> Strategies:
    """All strategies of one model."""
    return {**STRATEGIES, **{name: partial(_make, factory, context) for name, factory in CONTEXTUAL.items()}}


def _make(factory: ContextualFactory, context: StrategyContext, request: GenerateRequest) -> Strategy:
    return factory(request, context)
