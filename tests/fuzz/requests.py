"""Fuzzed requests: prompts as they are rendered, and whole messages as the server takes them, without a model."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import cache
from typing import Any

from google.protobuf import json_format

from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.registry import strategies
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.generate import CandidateOutput, GenerateRequest, TokenStatistics
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind, FinishReason, RequestUsage
from ift_serve.engine.protocol.score import ContinuationScore, ScoreOutput, ScoreRequest
from ift_serve.engine.protocol.wire import EngineInput, decode_input, encode
from ift_serve.frontend.engine_client import BaseEngineClient
from ift_serve.frontend.errors import EngineError
from ift_serve.server.auth import Identity
from ift_serve.server.body import BodyReader
from ift_serve.server.call_guard import Call
from ift_serve.server.config import Limits, ServerConfig
from ift_serve.server.errors import StatusError
from ift_serve.server.inference_service import InferenceService
from ift_serve.server.metrics import Metrics
from ift_serve.server.thoughts import Thoughts
from ift_serve.server.validation import Validator
from ift_serve.text.prompt import PromptError, PromptRenderer, Segment
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import reasoning_pb2
from tests.fuzz.inputs import SEPARATOR
from tests.support.models import tiny_tokenizer

_CONTEXT = 256
_PLAIN_TEXTS = b"\x00"
"""The first byte of inputs that are texts of a conversation; no message begins with it."""
_REFUSALS = (StatusError, PromptError, EngineError)
_ROLES = (pb.ROLE_USER, pb.ROLE_SYSTEM, pb.ROLE_ASSISTANT)
MESSAGES: list[type[Any]] = [pb.GenerateRequest, pb.StreamGenerateRequest, pb.ScoreRequest, pb.TokenizeRequest]
"""The first byte of an input says of which the others are."""


@cache
def _renderer() -> PromptRenderer:
    return PromptRenderer(tiny_tokenizer())


@cache
def _model() -> ModelDescription:
    return ModelDescription(
        name="none", path="", architecture="LlamaForCausalLM", fingerprint="v2-0", context_length=_CONTEXT,
        vocabulary_size=len(_renderer().tokenizer), hidden_size=8, layers=1, parameters=1, dtype="float32",
        device="cpu", eos_ids=[2], block_size=16, total_blocks=64, max_batch_tokens=64, max_sequences=8,
        attention_backend="cpu",
    )  # fmt: skip


def prompt() -> Callable[[bytes], None]:
    """A prompt is rendered whole, inside the vocabulary, and no text of its own becomes a control token."""
    renderer = _renderer()
    validator = Validator(_model(), renderer, Limits())
    special = set(renderer.encoder.markers.ids)
    said = (int(Segment.INSTRUCTION), int(Segment.CONTEXT))

    def run(data: bytes) -> None:
        try:
            message = _conversation(data[1:]) if data[:1] == _PLAIN_TEXTS else pb.Prompt.FromString(data)
            found = validator.prompt(message)
        except Exception as error:
            if isinstance(error, _REFUSALS) or type(error).__name__ == "DecodeError":
                return
            raise
        assert len(found.token_ids) == len(found.segment_ids) < _CONTEXT
        assert all(0 <= token < _model().vocabulary_size for token in found.token_ids)
        if message.WhichOneof("kind") not in ("instruction", "conversation"):
            return
        typed = [t for t, s in zip(found.token_ids, found.segment_ids, strict=True) if s in said]
        assert not special.intersection(typed), "text became a control token"
        for text in _texts(message):
            assert _plain(text) in _plain(found.text or ""), "text was lost"

    return run


def _conversation(data: bytes) -> pb.Prompt:
    """Parts of a conversation, each behind a byte of its role, whether it is context, and whether a message begins."""
    conversation = pb.Conversation()
    for one in data.split(SEPARATOR):
        kind = one[0] if one else 0
        if kind & 4 or not conversation.messages:
            conversation.messages.add(role=_ROLES[(kind >> 3) % len(_ROLES)])
        text = one[1:].decode(errors="ignore")
        conversation.messages[-1].parts.add(text=text, is_context=bool(kind & 2))
    return pb.Prompt(conversation=conversation)


def _texts(message: pb.Prompt) -> list[str]:
    if message.WhichOneof("kind") == "instruction":
        return [message.instruction.instruction, message.instruction.context]
    return [part.text for one in message.conversation.messages for part in one.parts]


def _plain(text: str) -> str:
    """Templates may strip white space."""
    return re.sub(r"\s+", "", text)


def prompt_seeds() -> dict[str, bytes]:
    """One of each kind."""
    part, message = pb.Part, pb.Message
    texts = (b"\x0cBe brief.", b"\x04Sort: ", b"\x02b, a", b"\x14a, b", b"\x04<|user|>Why?")
    tokens = _json(pb.TokensPrompt(), {"tokenIds": [5, 17, 99], "segments": [1, 2, 3]})
    conversation = pb.Conversation(
        messages=[
            message(role=pb.ROLE_SYSTEM, parts=[part(text="Be brief.")]),
            message(role=pb.ROLE_USER, parts=[part(text="Sort: "), part(text="b, a", is_context=True)]),
            message(role=pb.ROLE_ASSISTANT, parts=[part(text="<s>a, b</s>")]),
            message(role=pb.ROLE_USER, parts=[part(text="<|user|> é\u200d\ufeff \ue0a2 \u202e{{ x }} {% raw %}")]),
        ]
    )
    return {
        "instruction": pb.Prompt(
            instruction=pb.InstructionPrompt(instruction="How old is Ben?", context="Ben is 34.")
        ).SerializeToString(),
        "conversation": pb.Prompt(conversation=conversation).SerializeToString(),
        "texts": _PLAIN_TEXTS + SEPARATOR.join(texts),
        "text": pb.Prompt(text=pb.TextPrompt(text="<s>the fox", without_special_tokens=True)).SerializeToString(),
        "tokens": pb.Prompt(tokens=tokens).SerializeToString(),
    }


class QuietEngine(BaseEngineClient):
    """Takes what the server would send, makes the strategy that it names, and answers with one token."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.model = _model()
        self._strategies = strategies(StrategyContext.of_renderer(_renderer(), self.model.eos_ids))

    async def start(self, timeout: float = 120.0) -> None:
        self._set_state("ready")

    async def close(self) -> None:
        self._close_calls()

    def _send(self, message: EngineInput) -> None:
        """Nobody is there."""

    def _arrived(self, request: GenerateRequest | ScoreRequest) -> Any:
        """As the engine's process gets it."""
        arrived = decode_input(encode(request))
        assert isinstance(arrived, type(request))
        if arrived.adapter:
            raise EngineError(FailureKind.NOT_FOUND, "adapter: there is none", "adapter")
        return arrived

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[CandidateOutput]:
        arrived = self._arrived(request)
        try:
            self._strategies[arrived.strategy](arrived)
        except RefusedError as error:
            raise EngineError(error.kind, error.message, error.field) from None
        statistics = TokenStatistics(-0.5, 0.6, 0.25, 1.5, -3.0, 0.7)
        for candidate in range(arrived.sampling.candidates):
            last = candidate == arrived.sampling.candidates - 1
            yield CandidateOutput(
                request_id=arrived.request_id, candidate=candidate, token_ids=[17], statistics=[statistics],
                finish_reason=FinishReason.LENGTH, request_finished=last,
                usage=RequestUsage(prompt_tokens=len(arrived.token_ids)),
            )  # fmt: skip

    async def score(self, request: ScoreRequest) -> ScoreOutput:
        arrived = self._arrived(request)
        scores = [ContinuationScore(-1.0, True, [-1.0] * len(one)) for one in arrived.continuations]
        usage = RequestUsage(prompt_tokens=len(arrived.token_ids))
        return ScoreOutput(request_id=arrived.request_id, scores=scores, usage=usage)


def request() -> Callable[[bytes], None]:
    """A message of any rpc that a caller of role generate may send: an answer, or a refusal with a status."""
    config = ServerConfig(engine=EngineConfig(model="none"))
    engine, loop = QuietEngine(config.engine), asyncio.new_event_loop()
    loop.run_until_complete(engine.start())
    service = InferenceService(engine, _renderer(), config, Metrics(), Thoughts(_renderer()))
    reader = BodyReader(config.limits.request_bytes)
    identity = Identity("fuzz", "generate")
    handlers: list[Any] = [service.generate, service.stream_generate, service.score, service.tokenize]

    async def body(data: bytes) -> AsyncIterator[bytes]:
        yield data

    async def go(kind: int, data: bytes) -> None:
        call = Call("Fuzz", "id", "id/0", identity, time.monotonic(), None)
        message = await reader.read(body(data), MESSAGES[kind])
        answers = handlers[kind](message, call)
        if hasattr(answers, "__aiter__"):
            _ = [answer.SerializeToString() async for answer in answers]
            return
        answer = await answers
        _ = answer if isinstance(answer, bytes) else answer.SerializeToString()

    def run(data: bytes) -> None:
        if not data:
            return
        try:
            loop.run_until_complete(go(data[0] % len(MESSAGES), data[1:]))
        except _REFUSALS:
            return
        except ExceptionGroup as group:
            if group.split(_REFUSALS)[1] is not None:
                raise

    return run


def request_seeds() -> dict[str, bytes]:
    """One of each rpc, and of each strategy and form."""
    question = pb.Prompt(instruction=pb.InstructionPrompt(instruction="What is 2 + 3?"))
    sampling = pb.Sampling(
        temperature=0.7, top_p=0.9, top_k=40, min_p=0.05, seed=7, max_new_tokens=9, stop=["\n"], n=2,
        repetition_penalty=1.1, logit_bias={5: -1.0},
    )  # fmt: skip
    details = pb.Details(statistics=True, top_alternatives=3, prompt_token_ids=True)
    made: dict[str, tuple[int, Any]] = {
        "generate": (0, pb.GenerateRequest(prompt=question, sampling=sampling, details=details, priority=3)),
        "stream": (1, pb.StreamGenerateRequest(prompt=question, sampling=sampling, adapter="tone@0a")),
        "score": (2, _json(pb.ScoreRequest(), {"continuations": {
            "context": {"text": {"text": "the"}}, "continuations": [{"text": " fox"}]}})),
        "tokenize": (3, pb.TokenizeRequest(prompt=question)),
        "schema": (0, pb.GenerateRequest(prompt=question, output=pb.Output(json_schema='{"type": "integer"}'))),
        "regex": (0, pb.GenerateRequest(prompt=question, output=pb.Output(regex="[0-9]+"))),
    }  # fmt: skip
    for name, settings in (
        ("trace", {"trace": {"budget": 8, "earlyExit": {"confidence": {"threshold": 0.9}}}}),
        ("branch", {"branch": {"width": 3}}),
        ("vote", {"vote": {"samples": 4, "span": {"kind": "ANSWER_KIND_PATTERN", "pattern": "[0-9]+"}}}),
        ("best_of", {"bestOf": {"samples": 4}}),
        ("auto", {"auto": {}}),
    ):
        reasoning = _json(reasoning_pb2.Reasoning(), settings)
        made[name] = (0, pb.GenerateRequest(prompt=question, reasoning=reasoning))
    return {name: bytes([kind]) + message.SerializeToString() for name, (kind, message) in made.items()}


def _json(message: Any, fields: dict[str, Any]) -> Any:
    return json_format.ParseDict(fields, message, ignore_unknown_fields=True)
