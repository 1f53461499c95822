"""InferenceService: generation, scoring, tokenisation."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams
from ift_serve.frontend.engine_client import BaseEngineClient
from ift_serve.server.adapter_service import check_reference
from ift_serve.server.answers import CandidateText, Wanted
from ift_serve.server.applied_reasoning import conclusion_message
from ift_serve.server.call_guard import Call
from ift_serve.server.combinations import AnyGenerate
from ift_serve.server.config import ServerConfig
from ift_serve.server.generation import Generation
from ift_serve.server.metrics import Metrics
from ift_serve.server.output_format import output_format
from ift_serve.server.pieces import WholeCandidate
from ift_serve.server.planner import Plan, Planner
from ift_serve.server.sampling import applied_sampling, chosen_defaults
from ift_serve.server.scoring import Scorer
from ift_serve.server.thoughts import Thoughts, begin
from ift_serve.server.validation import Validator
from ift_serve.sharing.loop_shares import LoopShare, LoopShares
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
_LARGE_SETTINGS, _LARGE = 16, 2048
"""Bytes of settings that hold more than a few numbers, and of a text that is worked on beside the event loop."""


class InferenceService:
    """Handlers by rpc name. Each gets the request and its call."""

    def __init__(
        self,
        engine: BaseEngineClient,
        renderer: PromptRenderer,
        config: ServerConfig,
        metrics: Metrics,
        thoughts: Thoughts,
    ) -> None:
        self._engine = engine
        self._renderer = renderer
        self._config = config
        self._metrics = metrics
        self._validator = Validator(engine.model, renderer, config.limits, chosen_defaults(engine.model, config))
        self._planner = Planner(config.limits, thoughts)
        self._ends = answer_ends(renderer)
        self._workers = TextWorkers()
        self._loop_shares = LoopShares()
        self._scorer = Scorer(engine, renderer, self._validator, config.limits, self._workers, self._loop_shares)

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
        if generation.plan.applied is not None:
            response.reasoning.CopyFrom(generation.plan.applied)
        if generation.conclusion is not None:
            response.conclusion.CopyFrom(conclusion_message(generation.conclusion))
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
        if generation.plan.applied is not None:
            first.reasoning.CopyFrom(generation.plan.applied)
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
        if generation.conclusion is not None:
            last.conclusion.CopyFrom(conclusion_message(generation.conclusion))
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

    async def _plan(self, request: AnyGenerate, sampling: SamplingParams, prompt_tokens: int) -> Plan:
        room = self._engine.model.context_length - prompt_tokens
        # Markers of the request's own are looked up in the whole vocabulary, which takes a thread's time.
        size = _LARGE if request.reasoning.ByteSize() > _LARGE_SETTINGS else 0
        return await self._workers.run(size, lambda: self._planner.plan(request, sampling, room))

    async def _begin(self, request: AnyGenerate, call: Call) -> Generation:
        self._check_adapter(request.adapter)
        rendered = await self._render(request.prompt)
        sampling = self._validator.sampling(request.sampling, request.details, len(rendered.token_ids), request.adapter)
        whole = isinstance(request, pb.GenerateRequest)
        stop = self._validator.stop_strings(request.sampling)
        plan = await self._plan(request, sampling, len(rendered.token_ids))
        self._validator.answer_size(plan.sampling, whole=whole, thought_tokens=plan.thought_tokens)
        if self._config.log_prompts:
            call.notes["prompt"] = rendered.text
        call.notes["prompt_tokens"] = len(rendered.token_ids)
        engine_request = GenerateRequest(
            request_id=call.engine_id,
            token_ids=rendered.token_ids,
            segment_ids=rendered.segment_ids,
            sampling=plan.drawn,
            end_ids=self._ends,
            strategy=plan.strategy,
            reasoning=plan.settings,
            # Only a strategy has sequences whose text is not seen here.
            stop=stop if plan.settings is not None else [],
            output=output_format(request.output),
            limits=plan.limits,
            # Stop strings are found in the text as it is made; otherwise few and large messages will do.
            whole=whole and not stop,
            traced=call.trace.is_recorded,
            priority=self._validator.priority(request.priority, call.identity.role),
            adapter=request.adapter,
            client=call.identity.name,
            arrival=call.arrival,
            deadline=call.deadline,
        )
        candidates = self._candidates(plan, rendered, stop, Wanted.of(request.details))
        applied = applied_sampling(plan.sampling, stop)
        share = LoopShare(self._loop_shares)
        return Generation(self._engine, engine_request, candidates, plan, applied, call, self._metrics, share)

    def _candidates(self, plan: Plan, rendered: RenderedPrompt, stop: list[str], wanted: Wanted) -> list[CandidateText]:
        state = begin(plan.phases, rendered.token_ids, rendered.segment_ids)
        stop_ids = frozenset(plan.sampling.stop_ids)
        return [
            CandidateText(index, self._renderer.decoder, stop, wanted, state=state, stop_ids=stop_ids)
            for index in range(plan.sampling.candidates)
        ]

    def _check_adapter(self, adapter: str) -> None:
        if adapter:
            check_reference(adapter, "adapter")
