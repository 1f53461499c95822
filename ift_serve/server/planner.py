"""From what a request asks for to what the engine is told: parameters, strategy, limits, and the phases of answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.protocol.reasoning import Branch, Reasoning, RequestLimits
from ift_serve.server.applied_reasoning import applied_reasoning
from ift_serve.server.combinations import AnyGenerate, check_combinations
from ift_serve.server.config import Limits
from ift_serve.server.errors import conflict
from ift_serve.server.reasoning import ReasoningReader, strategy_of
from ift_serve.server.thoughts import Thoughts, trace_of
from ift_serve.server.traces import ThoughtRoom
from ift_serve.text.phases import PhaseSettings
from ift_serve.v1 import inference_pb2, reasoning_pb2


@dataclass(frozen=True, slots=True)
class Plan:
    """How one request is answered. ``phases``: None where no thought is told apart.

    ``forbidden``: tokens that are never drawn, because no thought is to be opened.
    """

    sampling: SamplingParams
    settings: Reasoning | None
    limits: RequestLimits
    phases: PhaseSettings | None
    is_asked_for: bool
    forbidden: tuple[int, ...] = ()

    @property
    def drawn(self) -> SamplingParams:
        """What the caller is told, without what is forbidden. A bias of the caller's own holds."""
        if not self.forbidden:
            return self.sampling
        bias = dict.fromkeys(self.forbidden, -math.inf) | self.sampling.logit_bias
        return msgspec.structs.replace(self.sampling, logit_bias=bias)

    @property
    def strategy(self) -> str:
        """The registered name of its strategy."""
        return strategy_of(self.settings)

    @property
    def thought_tokens(self) -> int:
        """Tokens that a candidate may take beside those of its answer."""
        trace = trace_of(self.settings)
        return 0 if trace is None else trace.budget

    @property
    def applied(self) -> reasoning_pb2.Reasoning | None:
        """What the caller is told; None where nothing was asked for."""
        return applied_reasoning(self.settings, self.limits) if self.is_asked_for else None


class Planner:
    """Plans requests of one model under one operator's caps."""

    def __init__(self, limits: Limits, thoughts: Thoughts) -> None:
        self._limits = limits
        self._thoughts = thoughts
        self._reader = ReasoningReader(limits)

    def plan(self, request: AnyGenerate, sampling: SamplingParams, room: int) -> Plan:
        """``sampling``: valid by itself; ``room``: tokens that the context leaves. Raises StatusError."""
        is_open = not request.sampling.HasField("max_new_tokens")
        thought_room = ThoughtRoom(self._thoughts, self._limits, room, sampling.max_new_tokens, is_open)
        settings = self._reader.read(request.reasoning, thought_room)
        limits = self._reader.limits(request.reasoning, sampling.candidates)
        kind = request.reasoning.WhichOneof("kind")
        phases = self._thoughts.phases(trace_of(settings), f"reasoning.{kind}")
        check_combinations(request, sampling, settings, has_thoughts=phases is not None)
        if isinstance(settings, Branch):
            sampling = msgspec.structs.replace(sampling, temperature=0.0)
        new_tokens = thought_room.answer
        if settings is None:
            new_tokens = min(new_tokens, _share(limits.total_tokens, sampling.candidates))
        sampling = msgspec.structs.replace(sampling, max_new_tokens=new_tokens)
        forbidden = self._thoughts.opening_ids if kind == "none" and _is_rendered(request.prompt) else ()
        return Plan(sampling, settings, limits, phases, request.HasField("reasoning"), forbidden)


def _is_rendered(prompt: inference_pb2.Prompt) -> bool:
    """Whether the chat template made the prompt; what a caller wrote token by token may ask for a thought itself."""
    return prompt.WhichOneof("kind") in ("instruction", "conversation")


def _share(total_tokens: int, candidates: int) -> int:
    """Tokens of one candidate of several that nobody watches over."""
    if total_tokens < candidates:
        problem = f"{total_tokens} tokens are too few for {candidates} candidates"
        raise conflict(["reasoning.max_total_tokens", "sampling.n"], problem)
    return total_tokens // candidates
