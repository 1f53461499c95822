"""None, a trace or branches, as what classifies instructions says."""

from __future__ import annotations

import msgspec

from ift_serve.decoding.branch import BranchDecoding
from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.phased_sample import sample
from ift_serve.decoding.requirements import settings_of
from ift_serve.decoding.trace import TraceDecoding
from ift_serve.engine.core.strategy import Strategy
from ift_serve.engine.protocol.generate import Conclusion, GenerateRequest
from ift_serve.engine.protocol.reasoning import Auto
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind


def auto_decoding(request: GenerateRequest, context: StrategyContext) -> Strategy:
    """The strategy that the instruction asks for; its conclusion names it.

    Branches begin from the most likely first tokens whatever the temperature is, and go on greedily. Raises
    RefusedError, also where nothing classifies.
    """
    settings = settings_of(request, Auto)
    if context.classify is None:
        raise RefusedError(FailureKind.UNFIT, "reasoning.auto: nothing here classifies instructions", "reasoning.auto")
    mode = context.classify(request)
    if mode == "trace":
        return TraceDecoding(
            msgspec.structs.replace(request, reasoning=settings.trace), context, "reasoning.auto.trace"
        )
    if mode == "branch":
        chosen = msgspec.structs.replace(request, reasoning=settings.branch)
        return BranchDecoding(chosen, context, "reasoning.auto.branch")
    if mode == "none":
        strategy = sample(request, context)
        strategy.conclusion = Conclusion(mode="none")
        return strategy
    raise RefusedError(FailureKind.INTERNAL, f"reasoning.auto: the classifier says {mode!r}", "reasoning.auto")
