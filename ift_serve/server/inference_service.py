"""InferenceService: generation, scoring, tokenisation."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from ift_serve.engine.protocol.generate import CandidateOutput, GenerateRequest
from ift_serve.frontend.engine_client import BaseEngineClient
from ift_serve.server.adapter_service import check_reference
from ift_serve.server.answers import CandidateText, UsageCount, Wanted
from ift_serve.server.call_guard import Call
from ift_serve.server.config import ServerConfig
from ift_serve.server.metrics import Metrics
from ift_serve.server.pieces import WholeCandidate, entries, pieces
from ift_serve.server.sampling import applied_sampling, chosen_defaults
from ift_serve.server.scoring import Scorer
from ift_serve.server.turns import Share, Turns
from ift_serve.server.validation import Validator
from ift_serve.text.detokenizer import cut
from ift_serve.text.ends import answer_ends
from ift_serve.text.prompt import PromptRenderer, RenderedPrompt, Segment
from ift_serve.text.workers import TextWorkers
from ift_serve.v1 import inference_pb2 as pb

_SEGMENTS = {
    Segment.TEMPLATE: pb.SEGMENT_TEMPLATE,
    Segment.INSTRUCTION: pb.SEGMENT_INSTRUCTION,
    Segment.CONTEXT: pb.SEGMENT_CONTEXT,
    Segment.RESPONSE: pb.SEGMENT_RESPONSE,
}
_SEGMENTS_OF_BYTES = {int(segment): value for segment, value in _SEGMENTS.items()}
AnyGenerate = pb.GenerateRequest | pb.StreamGenerateRequest


class InferenceService:
    """Handlers by rpc name. Each gets the request and its call."""

    def __init__(
        self, engine: BaseEngineClient, renderer: PromptRenderer, config: ServerConfig, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._renderer = renderer
        self._config = config
        self._metrics = metrics
        self._validator = Validator(engine.model, renderer, config.limits, chosen_defaults(engine.model, config))
        self._ends = answer_ends(renderer)
        self._workers = TextWorkers()
        self._turns = Turns()
        self._scorer = Scorer(engine, renderer, self._validator, config.limits, self._workers, self._turns)

    async def generate(self, request: pb.GenerateRequest, call: Call) -> bytes:
        """All candidates, whole: a serialised ``GenerateResponse``."""
        generation = await self._begin(request, call)
        response = pb.GenerateResponse(model=self._engine.model.name, seed=generation.request.sampling.seed)
        candidates = [WholeCandidate(index) for index in range(len(generation.candidates))]
        async for delta in generation.deltas():
            candidates[delta.index].add(delta)
        response.usage.CopyFrom(generation.end())
        response.adapter = generation.adapter
        response.sampling.CopyFrom(generation.sampling)
        if request.details.prompt_token_ids:
            response.prompt_token_ids.extend(generation.request.token_ids)
        return b"".join([*(candidate.serialised() for candidate in candidates), response.SerializeToString()])

    async def stream_generate(
        self, request: pb.StreamGenerateRequest, call: Call
    ) -> AsyncIterator[pb.StreamGenerateResponse]:
        """Text as it is made; the usage last."""
        generation = await self._begin(request, call)
        first = pb.StreamGenerateResponse(model=self._engine.model.name, seed=generation.request.sampling.seed)
        first.sampling.CopyFrom(generation.sampling)
        if request.details.prompt_token_ids:
            first.prompt_token_ids.extend(generation.request.token_ids)
        waiting: pb.StreamGenerateResponse | None = first
        async for delta in generation.deltas():
            message = waiting or pb.StreamGenerateResponse()
            if message is first:
                first.adapter = generation.adapter
            waiting = None
            message.deltas.append(delta)
            if generation.is_finished:
                # The last text and the usage go out together.
                waiting = message
            else:
                yield message
        last = waiting or pb.StreamGenerateResponse()
        last.usage.CopyFrom(generation.end())
        yield last

    async def score(self, request: pb.ScoreRequest, call: Call) -> pb.ScoreResponse:
        """Log-probabilities of continuations or of a text."""
        self._check_adapter(request.adapter)
        response = await self._scorer.score(request, call)
        response.model = self._engine.model.name
        return response

    async def tokenize(self, request: pb.TokenizeRequest, call: Call) -> pb.TokenizeResponse:
        """Token ids, segments and pieces of a prompt."""
        rendered = await self._render(request.prompt)
        return await self._workers.run(request.ByteSize(), lambda: self._cut(rendered))

    def _cut(self, rendered: RenderedPrompt) -> pb.TokenizeResponse:
        cut_pieces = cut(self._renderer.decoder, rendered.token_ids)
        return pb.TokenizeResponse(
            token_ids=rendered.token_ids,
            segments=[_SEGMENTS_OF_BYTES[segment] for segment in rendered.segment_ids],
            text=rendered.text or "",
            pieces=[piece.text for piece in cut_pieces],
            raw=[piece.raw for piece in cut_pieces],
        )

    async def _render(self, prompt: pb.Prompt) -> RenderedPrompt:
        return await self._workers.run(prompt.ByteSize(), lambda: self._validator.prompt(prompt))

    async def _begin(self, request: AnyGenerate, call: Call) -> _Generation:
        self._check_adapter(request.adapter)
        rendered = await self._render(request.prompt)
        sampling = self._validator.sampling(request.sampling, request.details, len(rendered.token_ids))
        whole = isinstance(request, pb.GenerateRequest)
        self._validator.answer_size(sampling, whole=whole)
        stop = self._validator.stop_strings(request.sampling)
        if self._config.log_prompts:
            call.notes["prompt"] = rendered.text
        call.notes["prompt_tokens"] = len(rendered.token_ids)
        wanted = Wanted.of(request.details)
        candidates = [CandidateText(i, self._renderer.decoder, stop, wanted) for i in range(sampling.candidates)]
        engine_request = GenerateRequest(
            request_id=call.engine_id,
            token_ids=rendered.token_ids,
            segment_ids=rendered.segment_ids,
            sampling=sampling,
            end_ids=self._ends,
            # Stop strings are found in the text as it is made; otherwise few and large messages will do.
            whole=whole and not stop,
            priority=self._validator.priority(request.priority, call.identity.role),
            adapter=request.adapter,
            client=call.identity.name,
            arrival=call.arrival,
            deadline=call.deadline,
        )
        applied = applied_sampling(sampling, stop)
        return _Generation(self._engine, engine_request, candidates, applied, call, self._metrics, Share(self._turns))

    def _check_adapter(self, adapter: str) -> None:
        if adapter:
            check_reference(adapter, "adapter")


class _Generation:
    """One request on its way through the engine."""

    def __init__(
        self,
        engine: BaseEngineClient,
        request: GenerateRequest,
        candidates: list[CandidateText],
        sampling: pb.Sampling,
        call: Call,
        metrics: Metrics,
        share: Share,
    ) -> None:
        self.request = request
        self.candidates = candidates
        self.sampling = sampling
        self._engine = engine
        self._call = call
        self._metrics = metrics
        self._share = share
        self._count = UsageCount(call.arrival)

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
        outputs = self._engine.generate(self.request)
        try:
            async for output in outputs:
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
        finally:
            await outputs.aclose()
            self._call.notes["generated_tokens"] = self._count.generated
            self._count.count(len(self.request.token_ids), self._metrics)

    def _add(self, candidate: CandidateText, piece: CandidateOutput) -> pb.CandidateDelta | None:
        before = candidate.tokens
        delta = candidate.add(piece, self._metrics)
        self._count.add(piece, candidate.tokens - before)
        return delta

    def end(self) -> pb.Usage:
        """The usage, once all deltas have been taken."""
        return self._count.message(len(self.request.token_ids))
