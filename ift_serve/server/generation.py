"""One request on its way through the engine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from ift_serve.engine.protocol.generate import CandidateOutput, Conclusion, GenerateRequest
from ift_serve.engine.protocol.timeline import Timeline
from ift_serve.frontend.engine_client import BaseEngineClient
from ift_serve.frontend.errors import EngineError
from ift_serve.server.answers import CandidateText, UsageCount
from ift_serve.server.call_guard import Call
from ift_serve.server.metrics import Metrics
from ift_serve.server.pieces import entries, pieces
from ift_serve.server.planner import Plan
from ift_serve.server.telemetry.call_trace import Generated
from ift_serve.sharing.loop_shares import LoopShare
from ift_serve.v1 import inference_pb2 as pb


class Generation:
    """One request on its way through the engine."""

    def __init__(
        self,
        engine: BaseEngineClient,
        request: GenerateRequest,
        candidates: list[CandidateText],
        plan: Plan,
        sampling: pb.Sampling,
        call: Call,
        metrics: Metrics,
        share: LoopShare,
    ) -> None:
        self.request = request
        self.candidates = candidates
        self.plan = plan
        self.sampling = sampling
        self.conclusion: Conclusion | None = None
        """What the strategy decided; known with the last output."""
        self._engine = engine
        self._call = call
        self._metrics = metrics
        self._share = share
        self._count = UsageCount(call.arrival)
        self._timeline: Timeline | None = None

    @property
    def adapter(self) -> str:
        """The version that answers, ``name@version``; known with the first output."""
        return self._count.usage.adapter

    @property
    def is_finished(self) -> bool:
        """Whether every candidate has ended."""
        return all(c.is_finished for c in self.candidates)

    async def deltas(self) -> AsyncIterator[pb.CandidateDelta]:
        """What is new, candidate by candidate. A candidate that meets a stop string is stopped in the engine."""
        outputs, sent = self._engine.generate(self.request), time.monotonic()
        try:
            async for output in outputs:
                self.conclusion = output.conclusion or self.conclusion
                self._timeline = output.timeline or self._timeline
                candidate, came = self.candidates[output.candidate], time.monotonic()
                before = candidate.tokens
                for piece in pieces(output):
                    if candidate.is_finished:
                        break
                    await self._share.take(entries(piece))
                    delta = self._add(candidate, piece)
                    if candidate.is_finished and output.finish_reason is None:
                        self._engine.stop_candidate(self.request.request_id, output.candidate)
                    if delta is not None:
                        yield delta
                candidate.observe(came, candidate.tokens - before, self._metrics)
        except EngineError as error:
            self._count.usage = error.usage or self._count.usage
            raise
        finally:
            await outputs.aclose()
            self._call.notes["generated_tokens"] = self._count.generated
            self._count.count(len(self.request.token_ids), self._metrics)
            if self._call.trace.is_recorded:
                self._call.trace.generated(self._generated(sent))

    def _generated(self, sent: float) -> Generated:
        """What a trace is told."""
        names = (pb.FinishReason.Name(c.finish_reason) for c in self.candidates if c.is_finished)
        return Generated(
            request=self.request,
            model=self._engine.model.name,
            sent=sent,
            ended=time.monotonic(),
            usage=self._count.usage,
            timeline=self._timeline,
            tokens=self._count.generated,
            reasons=tuple(name.removeprefix("FINISH_REASON_").lower() for name in names),
        )

    def _add(self, candidate: CandidateText, piece: CandidateOutput) -> pb.CandidateDelta | None:
        before = candidate.tokens
        delta = candidate.add(piece, self._metrics)
        self._count.add(piece, candidate.tokens - before)
        return delta

    def end(self) -> pb.Usage:
        """The usage, once all deltas have been taken."""
        return self._count.message(len(self.request.token_ids), self.candidates)
