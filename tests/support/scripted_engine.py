"""An engine that says what a test has written, behind a real model's description."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from ift_serve.engine.build import build_core
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.generate import CandidateOutput, GenerateRequest, TokenStatistics
from ift_serve.engine.protocol.results import FinishReason, RequestUsage
from ift_serve.engines.thread import LocalEngine

DRAWN = TokenStatistics(-0.5, 0.6, 0.25, 1.5, -3.0, 0.7)
FORCED = TokenStatistics(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, forced=True)


class ScriptedEngine(LocalEngine):
    """Answers every request with ``outputs``; ``requests`` are those that came."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config, build_core)
        self.requests: list[GenerateRequest] = []
        self.outputs: list[CandidateOutput] = [said([], FinishReason.LENGTH)]

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[CandidateOutput]:
        self.requests.append(request)
        for candidate in range(request.sampling.candidates):
            for output in self.outputs:
                yield msgspec.structs.replace(output, request_id=request.request_id, candidate=candidate)


def said(
    token_ids: Sequence[int], reason: FinishReason | None = None, *, forced: Sequence[int] = (), **fields: Any
) -> CandidateOutput:
    """One output; ``forced``: the places of its tokens that were not drawn."""
    return CandidateOutput(
        request_id="",
        candidate=0,
        token_ids=list(token_ids),
        statistics=[FORCED if place in forced else DRAWN for place in range(len(token_ids))],
        finish_reason=reason,
        request_finished=reason is not None,
        usage=fields.pop("usage", RequestUsage(prompt_tokens=1)) if reason is not None else None,
        **fields,
    )
