"""Arguments to messages, messages to results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ift_serve.client.output import output_message
from ift_serve.client.reasoning import AppliedReasoning, Conclusion, FinishReason
from ift_serve.client.reasoning_messages import applied, conclusion, fill, read, reasoning_message
from ift_serve.client.temperature import AdaptiveTemperature, TargetProbability
from ift_serve.client.texts import utf8, utf8_all
from ift_serve.client.types import (
    Adapter,
    Alternative,
    Candidate,
    Channel,
    Delta,
    Generation,
    Message,
    ModelInfo,
    Prompt,
    PromptLike,
    Score,
    Scores,
    Statistics,
    Token,
    Tokenization,
    Usage,
)
from ift_serve.v1 import adapter_pb2, model_pb2
from ift_serve.v1 import inference_pb2 as pb

_ROLES = {"system": pb.ROLE_SYSTEM, "user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT, "tool": pb.ROLE_TOOL}
_REASONS: dict[int, FinishReason] = {
    pb.FINISH_REASON_UNSPECIFIED: "",
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_EOS: "eos",
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_CANCELLED: "cancelled",
    pb.FINISH_REASON_DEADLINE: "deadline",
}
_CHANNELS: dict[int, Channel] = {
    pb.CHANNEL_UNSPECIFIED: "",
    pb.CHANNEL_REASONING: "reasoning",
    pb.CHANNEL_ANSWER: "answer",
    pb.CHANNEL_MARKER: "marker",
}
_PARTS: dict[str, type[Any]] = {"adaptive": AdaptiveTemperature, "target_probability": TargetProbability}
"""Fields of Sampling that are settings of their own."""
_SAMPLING = frozenset(field.name for field in pb.Sampling.DESCRIPTOR.fields)
_DETAILS = tuple(field.name for field in pb.Details.DESCRIPTOR.fields)

_GenerateT = TypeVar("_GenerateT", pb.GenerateRequest, pb.StreamGenerateRequest)


def prompt_message(prompt: PromptLike) -> pb.Prompt:
    """A string is an instruction, a list of messages a conversation."""
    if isinstance(prompt, str):
        prompt = Prompt(instruction=prompt)
    elif not isinstance(prompt, Prompt):
        prompt = Prompt.from_messages(prompt)
    if prompt.messages:
        messages = [_message(m, f"messages[{index}]") for index, m in enumerate(prompt.messages)]
        conversation = pb.Conversation(
            messages=messages,
            continue_final_message=prompt.continue_final_message,
            tools=_functions(prompt.tools, "tools"),
        )
        return pb.Prompt(conversation=conversation)
    if prompt.token_ids:
        segments = [_segment(name) for name in prompt.segments]
        return pb.Prompt(tokens=pb.TokensPrompt(token_ids=prompt.token_ids, segments=segments))
    if prompt.text is not None:
        text = pb.TextPrompt(text=utf8("text", prompt.text), without_special_tokens=prompt.without_special_tokens)
        return pb.Prompt(text=text)
    asked = pb.InstructionPrompt(
        instruction=utf8("instruction", prompt.instruction or ""), context=utf8("context", prompt.context)
    )
    return pb.Prompt(instruction=asked)


def _message(message: Message, field: str) -> pb.Message:
    if message.role not in _ROLES:
        raise ValueError(f"role: {message.role!r} is not one of {', '.join(_ROLES)}")
    return pb.Message(
        role=_ROLES[message.role],  # type: ignore[arg-type]
        parts=_parts(message, field),
        tool_calls=_functions(message.tool_calls, f"{field}.tool_calls"),
        tool_call_id=utf8(f"{field}.tool_call_id", message.tool_call_id),
        name=utf8(f"{field}.name", message.name),
    )


def _functions(functions: Sequence[Mapping[str, Any]], field: str) -> list[str]:
    listed = enumerate(functions)
    return [utf8(f"{field}[{i}]", json.dumps(one, ensure_ascii=False, allow_nan=False)) for i, one in listed]


def _parts(message: Message, field: str) -> list[pb.Part]:
    if message.parts:
        if message.text or message.context:
            raise ValueError(f"{field}: give parts, or text and context, not both")
        listed = enumerate(message.parts)
        return [pb.Part(text=utf8(f"{field}.parts[{i}].text", p.text), is_context=p.is_context) for i, p in listed]
    parts = [pb.Part(text=utf8(f"{field}.text", message.text))]
    if message.context:
        context = utf8(f"{field}.context", message.context)
        parts += [pb.Part(text="\n\n"), pb.Part(text=context, is_context=True)]
    return parts


def _segment(name: str) -> pb.Segment.ValueType:
    value = pb.Segment.DESCRIPTOR.values_by_name.get(f"SEGMENT_{name.upper()}")
    if value is None or not value.number:
        raise ValueError(f"segments: {name!r} is not one of template, instruction, context, response")
    return value.number  # type: ignore[return-value]


def sampling_message(options: Mapping[str, Any]) -> pb.Sampling:
    """Sampling fields by name; None is the server's default. Raises TypeError for unknown names."""
    unknown = set(options) - _SAMPLING
    if unknown:
        raise TypeError(f"unknown option {sorted(unknown)[0]!r}; there are {', '.join(sorted(_SAMPLING))}")
    if isinstance(stop := options.get("stop"), list | tuple):
        utf8_all("stop", (text for text in stop if isinstance(text, str)))
    plain = {name: value for name, value in options.items() if value is not None and name not in _PARTS}
    try:
        message = pb.Sampling(**plain)
        for name, kind in _PARTS.items():
            if (part := options.get(name)) is not None:
                if not isinstance(part, kind):
                    raise TypeError(f"{name} must be of type {kind.__name__}, not {type(part).__name__}")
                # Settings that leave all to the server are asked for all the same.
                getattr(message, name).SetInParent()
                fill(getattr(message, name), part, name)
        return message
    except (TypeError, ValueError) as error:
        raise ValueError(f"sampling: {error}") from error


def sampling_fields(message: pb.Sampling) -> dict[str, Any]:
    """The fields of a Sampling message that are set, by name, as ``sampling_message`` takes them."""
    return {field.name: _sampling_field(field.name, value) for field, value in message.ListFields()}


def _sampling_field(name: str, value: Any) -> Any:
    if name in _PARTS:
        return read(value, _PARTS[name])
    if isinstance(value, int | float):
        return value
    return dict(value) if name == "logit_bias" else list(value)


def _matched(message: pb.Candidate | pb.CandidateDelta) -> str | int | None:
    kind = message.matched_stop.WhichOneof("kind")
    return None if kind is None else getattr(message.matched_stop, kind)  # type: ignore[no-any-return]


def _processed(message: pb.Token | pb.Alternative) -> float | None:
    return message.processed_log_prob if message.HasField("processed_log_prob") else None


def _token(token: pb.Token) -> Token:
    statistics = None
    if token.HasField("statistics"):
        s = token.statistics
        statistics = Statistics(s.p1, s.p2, s.entropy, s.mean_top20_log_prob, s.temperature)
    alternatives = tuple(Alternative(a.token_id, a.text, a.log_prob, a.raw, _processed(a)) for a in token.alternatives)
    processed = _processed(token)
    channel = _CHANNELS[token.channel]
    return Token(
        token.token_id,
        token.text,
        token.log_prob,
        alternatives,
        statistics,
        token.raw,
        channel,
        token.forced,
        processed,
    )


def usage(message: pb.Usage) -> Usage:
    """Counts and times."""
    m = message
    return Usage(**{field.name: getattr(m, field.name) for field in m.DESCRIPTOR.fields})


def generation(message: pb.GenerateResponse, request_id: str) -> Generation:
    """A whole answer."""
    candidates = [
        Candidate(
            c.index,
            c.text,
            _REASONS[c.finish_reason],
            _matched(c),
            [_token(t) for t in c.tokens],
            c.reasoning,
            *_ranked(c),
        )
        for c in message.candidates
    ]
    return Generation(
        candidates,
        usage(message.usage),
        message.model,
        message.adapter,
        message.seed,
        request_id,
        list(message.prompt_token_ids),
        sampling_fields(message.sampling),
        *_reasoned(message),
    )


def _ranked(message: pb.Candidate | pb.CandidateDelta) -> tuple[float | None, float | None]:
    """Confidence and votes, where there are."""
    return (
        message.confidence if message.HasField("confidence") else None,
        message.votes if message.HasField("votes") else None,
    )


def _reasoned(
    message: pb.GenerateResponse | pb.StreamGenerateResponse,
) -> tuple[AppliedReasoning | None, Conclusion | None]:
    """How it was reasoned about and what was decided, where that is told."""
    return (
        applied(message.reasoning) if message.HasField("reasoning") else None,
        conclusion(message.conclusion, _REASONS) if message.HasField("conclusion") else None,
    )


def delta(message: pb.CandidateDelta) -> Delta:
    """A piece of a stream."""
    return Delta(
        message.index,
        message.text,
        _REASONS[message.finish_reason],
        _matched(message),
        tuple(_token(t) for t in message.tokens),
        message.reasoning,
        *_ranked(message),
    )


class Accumulator:
    """Joins the pieces of a stream to what a unary call would have returned; its tokens are kept or not."""

    def __init__(self, *, keep_tokens: bool = True) -> None:
        self._keep_tokens = keep_tokens
        self.result = Generation([], Usage(), "", "", 0)

    def add(self, message: pb.StreamGenerateResponse) -> list[Delta]:
        """Take a message over; returns its pieces."""
        result = self.result
        if message.model:
            result.model, result.adapter, result.seed = message.model, message.adapter, message.seed
            result.prompt_token_ids = list(message.prompt_token_ids)
            result.sampling = sampling_fields(message.sampling)
        pieces = [delta(d) for d in message.deltas]
        for piece in pieces:
            while len(result.candidates) <= piece.index:
                result.candidates.append(Candidate(len(result.candidates)))
            candidate = result.candidates[piece.index]
            candidate.text += piece.text
            candidate.reasoning += piece.reasoning
            if self._keep_tokens:
                candidate.tokens.extend(piece.tokens)
            if piece.finish_reason:
                candidate.finish_reason, candidate.matched_stop = piece.finish_reason, piece.matched_stop
                candidate.confidence, candidate.votes = piece.confidence, piece.votes
        if message.HasField("usage"):
            result.usage = usage(message.usage)
        told, decided = _reasoned(message)
        result.applied_reasoning, result.conclusion = told or result.applied_reasoning, decided or result.conclusion
        return pieces


def generate_message(kind: type[_GenerateT], prompt: PromptLike, options: Mapping[str, Any]) -> _GenerateT:
    """A request for whole answers or for a stream, which have the same fields. ``options``: see ``GenerateOptions``."""
    rest = dict(options)
    details = pb.Details(**{name: rest.pop(name) for name in _DETAILS if name in rest})
    return kind(
        reasoning=reasoning_message(rest.pop("reasoning", None), rest.pop("max_total_tokens", None)),
        output=output_message(rest.pop("output", None)),
        prompt=prompt_message(prompt),
        adapter=utf8("adapter", rest.pop("adapter", "")),
        priority=rest.pop("priority", 0),
        details=details,
        sampling=sampling_message(rest),
    )


def score_message(
    context: PromptLike,
    continuations: Sequence[str | Sequence[int]],
    token_log_probs: bool,
    priority: int,
    adapter: str,
) -> pb.ScoreRequest:
    """Continuations of one context; a string context is raw text."""
    prompt = Prompt.from_text(context) if isinstance(context, str) else context
    listed = [
        pb.Continuation(text=utf8(f"continuations[{index}]", c))
        if isinstance(c, str)
        else pb.Continuation(tokens=pb.TokenIds(token_ids=c))
        for index, c in enumerate(continuations)
    ]
    asked = pb.ScoreContinuations(context=prompt_message(prompt), continuations=listed)
    return pb.ScoreRequest(
        continuations=asked, token_log_probs=token_log_probs, priority=priority, adapter=utf8("adapter", adapter)
    )


def score_text_message(text: str, token_log_probs: bool, priority: int, adapter: str) -> pb.ScoreRequest:
    """A whole text."""
    return pb.ScoreRequest(
        text=pb.ScoreText(text=utf8("text", text)),
        token_log_probs=token_log_probs,
        priority=priority,
        adapter=utf8("adapter", adapter),
    )


def scores(message: pb.ScoreResponse) -> Scores:
    """Scores in order."""
    listed = [
        Score(s.log_prob, s.is_greedy, s.token_count, tuple(s.token_log_probs), tuple(s.token_ids))
        for s in message.scores
    ]
    return Scores(listed, usage(message.usage), message.model, message.adapter)


def tokenization(message: pb.TokenizeResponse) -> Tokenization:
    """Tokens with the names of their segments."""
    names = [pb.Segment.Name(s).removeprefix("SEGMENT_").lower() for s in message.segments]
    return Tokenization(list(message.token_ids), names, message.text, list(message.pieces), list(message.raw))


def adapter(message: adapter_pb2.Adapter) -> Adapter:
    """One version of an adapter."""
    m = message
    state = adapter_pb2.AdapterState.Name(m.state).removeprefix("ADAPTER_STATE_").lower()
    return Adapter(
        m.name, m.version, state, m.path, tuple(m.components), m.rank, m.bytes, m.in_flight, m.message,
        tuple(m.trained_on),
    )  # fmt: skip


def unload_message(reference: str, drain_seconds: float | None) -> adapter_pb2.UnloadAdapterRequest:
    """Without drain_seconds the server's own time holds."""
    return adapter_pb2.UnloadAdapterRequest(name=utf8("reference", reference), drain_seconds=drain_seconds)


def load_message(name: str, path: str) -> adapter_pb2.LoadAdapterRequest:
    """A directory to load, and its name."""
    return adapter_pb2.LoadAdapterRequest(name=utf8("name", name), path=utf8("path", path))


def get_message(reference: str) -> adapter_pb2.GetAdapterRequest:
    """One adapter to be described."""
    return adapter_pb2.GetAdapterRequest(name=utf8("reference", reference))


def model_info(message: model_pb2.GetModelResponse) -> ModelInfo:
    """The served model."""
    m = message
    limits = {f.name: getattr(m.limits, f.name) for f in m.limits.DESCRIPTOR.fields}
    load = {f.name: getattr(m.load, f.name) for f in m.load.DESCRIPTOR.fields}
    return ModelInfo(
        m.name,
        m.architecture,
        m.fingerprint,
        m.parameters,
        m.vocabulary_size,
        m.limits.context_length,
        m.dtype,
        m.device,
        m.attention_backend,
        m.chat_template,
        tuple(m.features),
        m.version,
        limits,
        load,
        sampling_fields(m.sampling_defaults),
        tuple(m.sampling_not_applied),
        (m.thought_opening, m.thought_closing) if m.thought_opening else None,
        m.template_fingerprint,
        m.weights or "stored",
        tuple(m.eos_token_ids),
    )
