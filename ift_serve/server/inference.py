"""InferenceService: generation, scoring, tokenisation."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ift_serve.engine.client import BaseEngineClient
from ift_serve.engine.messages import GenerateRequest
from ift_serve.server.adapters import check_reference
from ift_serve.server.answers import CandidateText, UsageCount, Wanted
from ift_serve.server.calls import Call
from ift_serve.server.config import ServerConfig
from ift_serve.server.metrics import Metrics
from ift_serve.server.sampling import applied_sampling, chosen_defaults
from ift_serve.server.scoring import Scorer
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
        self._scorer = Scorer(engine, renderer, self._validator, config.limits, self._workers)

    async def generate(self, request: pb.GenerateRequest, call: Call) -> pb.GenerateResponse:
        """All candidates, whole."""
        generation = await self._begin(request, call)
        response = pb.GenerateResponse(model=self._engine.model.name, seed=generation.request.sampling.seed)
        response.candidates.extend(pb.Candidate(index=i) for i in range(len(generation.candidates)))
        texts: list[list[str]] = [[] for _ in generation.candidates]
        async for delta in generation.deltas():
            candidate = response.candidates[delta.index]
            texts[delta.index].append(delta.text)
            candidate.tokens.extend(delta.tokens)
            if delta.finish_reason:
                candidate.finish_reason = delta.finish_reason
            if delta.HasField("matched_stop"):
                candidate.matched_stop.CopyFrom(delta.matched_stop)
        for candidate, pieces in zip(response.candidates, texts, strict=True):
            candidate.text = "".join(pieces)
        response.usage.CopyFrom(generation.end())
        response.adapter = generation.adapter
        response.sampling.CopyFrom(generation.sampling)
        if request.details.prompt_token_ids:
            response.prompt_token_ids.extend(generation.request.token_ids)
        return response

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
        pieces = await self._workers.run(request.ByteSize(), lambda: cut(self._renderer.decoder, rendered.token_ids))
        return pb.TokenizeResponse(
            token_ids=rendered.token_ids,
            segments=[_SEGMENTS[Segment(s)] for s in rendered.segment_ids],
            text=rendered.text or "",
            pieces=[piece.text for piece in pieces],
            raw=[piece.raw for piece in pieces],
        )

    async def _render(self, prompt: pb.Prompt) -> RenderedPrompt:
        return await self._workers.run(prompt.ByteSize(), lambda: self._validator.prompt(prompt))

    async def _begin(self, request: AnyGenerate, call: Call) -> _Generation:
        self._check_adapter(request.adapter)
        rendered = await self._render(request.prompt)
        sampling = self._validator.sampling(request.sampling, request.details, len(rendered.token_ids))
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
            # Stop strings are found in the text as it is made; otherwise one message at the end will do.
            whole=isinstance(request, pb.GenerateRequest) and not stop,
            priority=self._validator.priority(request.priority),
            adapter=request.adapter,
            client=call.identity.name,
            arrival=call.arrival,
            deadline=call.deadline,
        )
        applied = applied_sampling(sampling, stop)
        return _Generation(self._engine, engine_request, candidates, applied, call, self._metrics)

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
    ) -> None:
        self.request = request
        self.candidates = candidates
        self.sampling = sampling
        self._engine = engine
        self._call = call
        self._metrics = metrics
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
                candidate = self.candidates[output.candidate]
                if candidate.is_finished:
                    continue
                before = candidate.tokens
                delta = candidate.add(output, self._metrics)
                self._count.add(output, candidate.tokens - before)
                if candidate.is_finished and output.finish_reason is None:
                    self._engine.stop_candidate(self.request.request_id, output.candidate)
                if delta is not None:
                    yield delta
        finally:
            await outputs.aclose()
            self._call.notes["generated_tokens"] = self._count.generated
            self._count.count(len(self.request.token_ids), self._metrics)

    def end(self) -> pb.Usage:
        """The usage, once all deltas have been taken."""
        return self._count.message(len(self.request.token_ids))
