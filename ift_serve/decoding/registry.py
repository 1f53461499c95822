"""The strategies that a request can name: those of this package, and those that other packages register."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from ift_serve.decoding.auto import auto_decoding
from ift_serve.decoding.best_of import BestOfDecoding
from ift_serve.decoding.branch import BranchDecoding
from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.phased_sample import sample
from ift_serve.decoding.sample import Sample
from ift_serve.decoding.trace import TraceDecoding
from ift_serve.decoding.vote import VoteDecoding
from ift_serve.engine.core.strategy import Strategies, Strategy, StrategyFactory
from ift_serve.engine.protocol.generate import GenerateRequest

_log = logging.getLogger(__name__)

ENTRY_POINTS = "ift_serve.strategies"
"""The group of entry points under which packages register strategies: ``name = "module:factory"``.

A factory takes the request, whose ``reasoning.settings`` it checks itself, and the ``StrategyContext`` of the model; it
returns a ``Strategy`` or raises ``RefusedError``.
"""
ContextualFactory = Callable[[GenerateRequest, StrategyContext], Strategy]

STRATEGIES: Mapping[str, StrategyFactory] = MappingProxyType({"sample": Sample})
"""Those that need to know nothing of the model, by the name that ``GenerateRequest.strategy`` carries."""
CONTEXTUAL: Mapping[str, ContextualFactory] = MappingProxyType(
    {
        "sample": sample,
        "trace": TraceDecoding,
        "branch": BranchDecoding,
        "vote": VoteDecoding,
        "best_of": BestOfDecoding,
        "auto": auto_decoding,
    }
)
"""Those that read the model's text or markers."""


def strategies(context: StrategyContext) -> Strategies:
    """All strategies of one model."""
    contextual = {**registered(), **CONTEXTUAL}
    return {**STRATEGIES, **{name: partial(_make, factory, context) for name, factory in contextual.items()}}


def registered() -> dict[str, ContextualFactory]:
    """What installed packages register. One that cannot be loaded, or takes a name that is taken, is left out."""
    found: dict[str, ContextualFactory] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if point.name in STRATEGIES or point.name in CONTEXTUAL or point.name in found:
            _log.error("strategy %s of %s is left out: the name is taken", point.name, point.value)
            continue
        factory = _loaded(point)
        if factory is not None:
            found[point.name] = factory
    return found


def _loaded(point: EntryPoint) -> ContextualFactory | None:
    try:
        factory = point.load()
    except Exception:  # whatever another package does when it is imported
        _log.exception("strategy %s of %s is left out: it cannot be loaded", point.name, point.value)
        return None
    if not callable(factory):
        _log.error("strategy %s of %s is left out: it is not a factory", point.name, point.value)
        return None
    made: ContextualFactory = factory
    return made


def _make(factory: ContextualFactory, context: StrategyContext, request: GenerateRequest) -> Strategy:
    return factory(request, context)
