"""Log-probabilities of continuations and of whole texts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from ift_serve.engine.protocol.score import ContinuationScore, ScoreOutput, ScoreRequest
from ift_serve.frontend.engine_client import BaseEngineClient
from ift_serve.server.call_guard import Call
from ift_serve.server.config import Limits
from ift_serve.server.errors import invalid
from ift_serve.server.side_by_side import side_by_side
from ift_serve.server.telemetry.call_trace import Scored
from ift_serve.server.validation import Validator
from ift_serve.sharing.loop_shares import LoopShare, LoopShares
from ift_serve.text.prompt import PromptRenderer
from ift_serve.text.workers import TextWorkers
from ift_serve.v1 import inference_pb2 as pb

_WINDOWS_AT_ONCE = 4
_Window = tuple[list[int], list[int]]


def windows(tokens: Sequence[int], begin: int, length: int) -> Iterator[_Window]:
    """Contexts and continuations that predict every token once with at most ``length`` tokens of input.

    As lm-eval's rolling windows with a context of one: the first begins with ``begin``; later ones are full, the
    last one reaches back for context.
    """
    first = list(tokens[:length])
    yield [begin], first
    place = len(first)
    while place < len(tokens):
        count = min(len(tokens) - place, length)
        end = place + count
        start = end - length - 1
        yield list(tokens[start:place]), list(tokens[place:end])
        place = end


class Scorer:
    """Answers score requests."""

    def __init__(
        self,
        engine: BaseEngineClient,
        renderer: PromptRenderer,
        validator: Validator,
        limits: Limits,
        workers: TextWorkers,
        loop_shares: LoopShares,
    ) -> None:
        self._engine = engine
        self._renderer = renderer
        self._validator = validator
        self._limits = limits
        self._workers = workers
        self._loop_shares = loop_shares

    async def score(self, request: pb.ScoreRequest, call: Call) -> pb.ScoreResponse:
        """Dispatch on what is scored."""
        priority = self._validator.priority(request.priority, call.identity.role)
        kind = request.WhichOneof("kind")
        if kind == "continuations":
            return await self._continuations(request, call, priority)
        if kind == "text":
            return await self._text(request, call, priority)
        raise invalid("kind", "is missing; set continuations or text")

    async def _continuations(self, request: pb.ScoreRequest, call: Call, priority: int) -> pb.ScoreResponse:
        context, segments, own = await self._workers.run(
            _batch_size(request.continuations), lambda: self._pairs(request.continuations)
        )
        sent = time.monotonic()
        output = await self._run(context, own, call, priority, "", request.adapter, segments)
        response = pb.ScoreResponse()
        share = LoopShare(self._loop_shares)
        for ids, score in zip(own, output.scores, strict=True):
            await _add(response, [score], ids, request.token_log_probs, share)
        self._usage(response, [output], call, len(context) + sum(map(len, own)), sent)
        return response

    def _pairs(self, asked: pb.ScoreContinuations) -> tuple[list[int], bytes, list[list[int]]]:
        """Token ids and segments of the context, and token ids of each continuation."""
        path = "continuations.continuations"
        if not asked.continuations:
            raise invalid(path, "is empty; give at least one continuation")
        if len(asked.continuations) > self._limits.continuations:
            raise invalid(path, f"has more than {self._limits.continuations} entries")
        for index, one in enumerate(asked.continuations):
            if one.WhichOneof("kind") is None or (one.WhichOneof("kind") == "text" and not one.text):
                raise invalid(f"{path}[{index}]", "is empty; set text or tokens")
        texts = [one.text for one in asked.continuations if one.WhichOneof("kind") == "text"]
        kind = asked.context.WhichOneof("kind")
        segments = b""
        if kind in ("text", None):
            special = not asked.context.text.without_special_tokens
            context, own = self._renderer.continuations(asked.context.text.text, texts, add_special_tokens=special)
        else:
            rendered = self._validator.prompt(asked.context, "continuations.context")
            segments = rendered.segment_ids
            if rendered.text is None:
                if texts:
                    raise invalid(path, "a context of token ids needs continuations of token ids")
                context, own = rendered.token_ids, []
            else:
                context, own = self._renderer.continuations_of(rendered, texts)
        from_text = iter(own)
        every = [
            next(from_text)
            if one.WhichOneof("kind") == "text"
            else self._validator.token_ids(one.tokens.token_ids, f"{path}[{index}].tokens.token_ids")
            for index, one in enumerate(asked.continuations)
        ]
        self._validator.scored_tokens(path, sum(map(len, every)))
        limit = self._engine.model.context_length
        for index, ids in enumerate(every):
            if len(context) + len(ids) - 1 > limit:
                raise invalid(f"{path}[{index}]", f"with its context is over the model's {limit} tokens")
        # Where the continuation changes how the end of the context is cut into tokens, the last segments stretch.
        if segments and len(segments) != len(context):
            segments = (segments + segments[-1:] * len(context))[: len(context)]
        return context, segments, every

    async def _text(self, request: pb.ScoreRequest, call: Call, priority: int) -> pb.ScoreResponse:
        """A whole text, in windows that run side by side."""
        encode = self._renderer.encoder.encode
        ids = await self._workers.run(
            request.ByteSize(), lambda: list(encode(request.text.text, "text.text", any_length=True).ids)
        )
        if not ids:
            raise invalid("text.text", "has no tokens")
        self._validator.scored_tokens("text.text", len(ids))
        tokenizer = self._renderer.tokenizer
        begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if begin is None:
            raise invalid("text.text", "the model has no token that begins a text; score continuations instead")
        limit = self._engine.model.context_length
        sent = time.monotonic()
        outputs = await self._score_windows(windows(ids, int(begin), limit), request.adapter, call, priority)
        response = pb.ScoreResponse()
        await _add(response, [o.scores[0] for o in outputs], ids, request.token_log_probs, LoopShare(self._loop_shares))
        self._usage(response, outputs, call, len(ids), sent)
        return response

    async def _score_windows(
        self, all_windows: Iterator[_Window], adapter: str, call: Call, priority: int
    ) -> list[ScoreOutput]:
        """The scores of every window, all by the version of the adapter that scored the first."""

        async def one(numbered: tuple[int, _Window]) -> ScoreOutput:
            index, (context, continuation) = numbered
            return await self._run(context, [continuation], call, priority, f"/{index}", adapter)

        numbered = enumerate(all_windows)
        first = await one(next(numbered))
        adapter = first.usage.adapter
        return [first, *await side_by_side(numbered, one, _WINDOWS_AT_ONCE)]

    async def _run(
        self,
        context: list[int],
        continuations: list[list[int]],
        call: Call,
        priority: int,
        suffix: str,
        adapter: str,
        segments: bytes = b"",
    ) -> ScoreOutput:
        return await self._engine.score(
            ScoreRequest(
                request_id=call.engine_id + suffix,
                token_ids=context,
                continuations=continuations,
                segment_ids=segments,
                adapter=adapter,
                priority=priority,
                client=call.identity.name,
                arrival=call.arrival,
                deadline=call.deadline,
            )
        )

    def _usage(
        self, response: pb.ScoreResponse, outputs: list[ScoreOutput], call: Call, tokens: int, sent: float
    ) -> None:
        call.notes["prompt_tokens"] = tokens
        response.adapter = outputs[0].usage.adapter
        response.usage.prompt_tokens = tokens
        response.usage.cached_tokens = sum(o.usage.cached_tokens for o in outputs)
        response.usage.queue_seconds = min(o.usage.queue_seconds for o in outputs)
        response.usage.total_seconds = time.monotonic() - call.arrival
        if call.trace.is_recorded:
            scored = Scored(
                model=self._engine.model.name,
                sent=sent,
                ended=time.monotonic(),
                adapter=response.adapter,
                prompt_tokens=tokens,
                cached_tokens=response.usage.cached_tokens,
                queue_seconds=response.usage.queue_seconds,
                windows=len(outputs),
            )
            call.trace.scored(scored)


def _batch_size(asked: pb.ScoreContinuations) -> int:
    """Bytes of text to read: the context is read with every continuation."""
    return asked.ByteSize() + asked.context.ByteSize() * len(asked.continuations)


async def _add(
    response: pb.ScoreResponse, parts: list[ContinuationScore], ids: list[int], every_token: bool, share: LoopShare
) -> None:
    score = response.scores.add(
        log_prob=sum(p.log_prob for p in parts), is_greedy=all(p.is_greedy for p in parts), token_count=len(ids)
    )
    if not every_token:
        return
    place = 0
    for part in parts:
        count = len(part.token_log_probs)
        # Numbers are quick: a hundred of them take as long as one alternative with its text.
        await share.take(count // 100)
        score.token_ids.extend(ids[place : place + count])
        score.token_log_probs.extend(part.token_log_probs)
        place += count
