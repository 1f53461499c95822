"""Request messages to the engine's own, with the path of whatever is wrong."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import grpc

from ift_serve.engine.protocol.generate import SamplingDefaults, SamplingParams
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.server.adaptive import adaptive_temperature, target_probability
from ift_serve.server.auth import Role as CallerRole
from ift_serve.server.bounds import number, short
from ift_serve.server.config import Limits
from ift_serve.server.errors import StatusError, invalid
from ift_serve.text.functions import Function, read_function
from ift_serve.text.prompt import Message, Part, PromptRenderer, RenderedPrompt, Role, Segment
from ift_serve.v1 import inference_pb2 as pb

MAX_ALTERNATIVES = 20
_MAX_PRIORITY = 100
_MOST_FUNCTIONS, _LONGEST_NAME = 128, 256
_LEAST_REPETITION = 0.009999999776482582  # 0.01 as a float of the message; far below it logits would overflow
_ROLES: dict[int, Role] = {
    pb.ROLE_SYSTEM: "system",
    pb.ROLE_USER: "user",
    pb.ROLE_ASSISTANT: "assistant",
    pb.ROLE_TOOL: "tool",
}
_SEGMENTS = {
    pb.SEGMENT_UNSPECIFIED: Segment.TEMPLATE,
    pb.SEGMENT_TEMPLATE: Segment.TEMPLATE,
    pb.SEGMENT_INSTRUCTION: Segment.INSTRUCTION,
    pb.SEGMENT_CONTEXT: Segment.CONTEXT,
    pb.SEGMENT_RESPONSE: Segment.RESPONSE,
}


def _functions(texts: Sequence[str], path: str) -> tuple[Function, ...]:
    if len(texts) > _MOST_FUNCTIONS:
        raise invalid(path, f"has more than {_MOST_FUNCTIONS} entries")
    return tuple(read_function(text, f"{path}[{index}]") for index, text in enumerate(texts))


def _message(role: Role, message: pb.Message, path: str) -> Message:
    """A message whose fields belong to its role. Raises StatusError or PromptError."""
    if message.tool_calls and role != "assistant":
        raise invalid(f"{path}.tool_calls", "belongs to messages of the role assistant")
    for field in ("tool_call_id", "name"):
        if getattr(message, field) and role != "tool":
            raise invalid(f"{path}.{field}", "belongs to messages of the role tool")
        short(f"{path}.{field}", getattr(message, field), _LONGEST_NAME)
    calls = _functions(message.tool_calls, f"{path}.tool_calls")
    parts = tuple(Part(p.text, p.is_context) for p in message.parts)
    return Message(role, parts, calls, message.tool_call_id, message.name)


class Validator:
    """Checks requests against one model and its limits."""

    def __init__(
        self,
        model: ModelDescription,
        renderer: PromptRenderer,
        limits: Limits,
        defaults: SamplingDefaults | None = None,
    ) -> None:
        self._model = model
        self._renderer = renderer
        self._limits = limits
        self._defaults = defaults or SamplingDefaults()

    def prompt(self, prompt: pb.Prompt, path: str = "prompt") -> RenderedPrompt:
        """The prompt's tokens. Raises StatusError or PromptError."""
        kind = prompt.WhichOneof("kind")
        if kind is None:
            raise invalid(path, "is missing; set one of instruction, conversation, text, tokens")
        if kind == "instruction":
            rendered = self._renderer.instruction(prompt.instruction.instruction, prompt.instruction.context)
        elif kind == "conversation":
            rendered = self._conversation(prompt.conversation, f"{path}.conversation")
        elif kind == "text":
            rendered = self._renderer.text(prompt.text.text, add_special_tokens=not prompt.text.without_special_tokens)
        else:
            rendered = self._tokens(prompt.tokens, f"{path}.tokens")
        self._check_length(len(rendered.token_ids), path)
        return rendered

    def _check_length(self, tokens: int, path: str) -> None:
        limit = self._model.context_length
        if tokens >= limit:
            raise invalid(path, f"has {tokens} tokens; the model's context of {limit} leaves no room for an answer")

    def _conversation(self, conversation: pb.Conversation, path: str) -> RenderedPrompt:
        if len(conversation.messages) > self._limits.messages:
            raise invalid(f"{path}.messages", f"has more than {self._limits.messages} entries")
        if sum(len(message.parts) for message in conversation.messages) > self._limits.parts:
            raise invalid(f"{path}.messages", f"have more than {self._limits.parts} parts together")
        messages = []
        for index, message in enumerate(conversation.messages):
            role = _ROLES.get(message.role)
            if role is None:
                raise invalid(f"{path}.messages[{index}].role", "must be system, user, assistant or tool")
            messages.append(_message(role, message, f"{path}.messages[{index}]"))
        tools = _functions(conversation.tools, f"{path}.tools")
        return self._renderer.conversation(messages, continue_final=conversation.continue_final_message, tools=tools)

    def _tokens(self, tokens: pb.TokensPrompt, path: str) -> RenderedPrompt:
        ids = self.token_ids(tokens.token_ids, f"{path}.token_ids")
        if tokens.segments and len(tokens.segments) != len(ids):
            raise invalid(f"{path}.segments", f"has {len(tokens.segments)} entries for {len(ids)} tokens")
        segments = bytearray(len(ids))
        for index, segment in enumerate(tokens.segments):
            if segment not in _SEGMENTS:
                raise invalid(f"{path}.segments[{index}]", f"{segment} is not a segment")
            segments[index] = _SEGMENTS[segment]
        return RenderedPrompt(ids, bytes(segments), None)

    def token_ids(self, ids: Any, path: str) -> list[int]:
        """A non-empty list of ids within the vocabulary."""
        listed = list(ids)
        if not listed:
            raise invalid(path, "is empty; give at least one token id")
        size = self._model.vocabulary_size
        for index, token in enumerate(listed):
            if token >= size:
                raise invalid(f"{path}[{index}]", f"{token} is not below the vocabulary size of {size}")
        return listed

    def priority(self, value: int, role: CallerRole) -> int:
        """A priority within the bounds of the caller's role."""
        if role == "admin":
            return int(number("priority", value, -_MAX_PRIORITY, _MAX_PRIORITY))
        return int(number("priority", value, -_MAX_PRIORITY, self._limits.max_priority, hint=" for the role generate"))

    def sampling(
        self, sampling: pb.Sampling, details: pb.Details, prompt_tokens: int, adapter: str = ""
    ) -> SamplingParams:
        """Sampling parameters with defaults filled in; the seed is chosen here if the caller has none."""
        s, path, default = sampling, "sampling", self._defaults
        room = self._model.context_length - prompt_tokens
        top_k = s.top_k if s.HasField("top_k") else default.top_k
        temperature = default.temperature
        if s.HasField("temperature"):
            temperature = number(f"{path}.temperature", s.temperature, 0, 10)
        return SamplingParams(
            temperature=temperature,
            reasoning_temperature=(
                number(f"{path}.reasoning_temperature", s.reasoning_temperature, 0, 10)
                if s.HasField("reasoning_temperature")
                else None
            ),
            adaptive=adaptive_temperature(s, temperature, adapter),
            target_probability=target_probability(s, temperature),
            top_n_sigma=number(f"{path}.top_n_sigma", s.top_n_sigma, 0, 100),
            p_less=s.p_less,
            top_h=number(f"{path}.top_h", s.top_h, 0, 1),
            top_p=number(f"{path}.top_p", s.top_p, 0, 1, above=True) if s.HasField("top_p") else default.top_p,
            top_k=min(top_k, self._model.vocabulary_size),
            min_p=number(f"{path}.min_p", s.min_p, 0, 1) if s.HasField("min_p") else default.min_p,
            repetition_penalty=number(f"{path}.repetition_penalty", s.repetition_penalty, _LEAST_REPETITION, 10)
            if s.HasField("repetition_penalty")
            else default.repetition_penalty,
            presence_penalty=number(f"{path}.presence_penalty", s.presence_penalty, -10, 10),
            frequency_penalty=number(f"{path}.frequency_penalty", s.frequency_penalty, -10, 10),
            logit_bias=self._bias(s),
            seed=s.seed if s.HasField("seed") else secrets.randbits(63),
            max_new_tokens=self._new_tokens(s, prompt_tokens, room),
            stop_ids=self._stop_ids(s),
            ignore_eos=s.ignore_eos,
            candidates=int(number(f"{path}.n", s.n, 1, self._candidates())) if s.HasField("n") else 1,
            top_logprobs=int(number("details.top_alternatives", details.top_alternatives, 0, MAX_ALTERNATIVES)),
            processed_log_probs=details.processed_log_probs,
        )

    def answer_size(self, sampling: SamplingParams, *, whole: bool, thought_tokens: int = 0) -> None:
        """Raise StatusError where an answer may become too large; ``whole``: in one message."""
        limit = self._limits.answer_entries if whole else self._limits.stream_entries
        new_tokens = sampling.max_new_tokens + thought_tokens
        wanted = sampling.candidates * new_tokens * (1 + sampling.top_logprobs)
        if wanted <= limit:
            return
        problem = (
            f"{sampling.candidates} candidates of {new_tokens} new tokens, each with "
            f"{sampling.top_logprobs} alternatives, make {wanted} entries; at most {limit} fit in one "
            f"{'answer' if whole else 'stream'}: ask for fewer of them"
        )
        if whole and wanted <= self._limits.stream_entries:
            problem += ", or stream the answer"
        fields = ["sampling.n", "sampling.max_new_tokens", "details.top_alternatives"]
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT, f"{', '.join(fields)}: {problem}", [(field, problem) for field in fields]
        )

    def scored_tokens(self, path: str, count: int) -> None:
        """Raise StatusError where too many tokens are to be scored at once."""
        if count > self._limits.answer_entries:
            raise invalid(path, f"has {count} tokens to score; at most {self._limits.answer_entries} in one call")

    def _candidates(self) -> int:
        return min(self._limits.candidates, self._model.max_sequences)

    def _new_tokens(self, sampling: pb.Sampling, prompt_tokens: int, room: int) -> int:
        if not sampling.HasField("max_new_tokens"):
            return min(self._defaults.max_new_tokens, room)
        wanted = sampling.max_new_tokens
        hint = f" (the context of {self._model.context_length} less the prompt of {prompt_tokens})"
        return int(number("sampling.max_new_tokens", wanted, 1, room, hint=hint))

    def _bias(self, sampling: pb.Sampling) -> dict[int, float]:
        path = "sampling.logit_bias"
        if len(sampling.logit_bias) > self._limits.bias_entries:
            raise invalid(path, f"has more than {self._limits.bias_entries} entries")
        for token, bias in sampling.logit_bias.items():
            if token >= self._model.vocabulary_size:
                raise invalid(f"{path}[{token}]", f"is not below the vocabulary size of {self._model.vocabulary_size}")
            number(f"{path}[{token}]", bias, -100, 100)
        return self._defaults.logit_bias | dict(sampling.logit_bias)

    def _stop_ids(self, sampling: pb.Sampling) -> list[int]:
        if not sampling.stop_token_ids:
            return []
        if len(sampling.stop_token_ids) > self._limits.stop_ids:
            raise invalid("sampling.stop_token_ids", f"has more than {self._limits.stop_ids} entries")
        return self.token_ids(sampling.stop_token_ids, "sampling.stop_token_ids")

    def stop_strings(self, sampling: pb.Sampling) -> list[str]:
        """Stop strings within bounds."""
        if len(sampling.stop) > self._limits.stop_strings:
            raise invalid("sampling.stop", f"has more than {self._limits.stop_strings} entries")
        for index, stop in enumerate(sampling.stop):
            if not stop:
                raise invalid(f"sampling.stop[{index}]", "is empty")
            if len(stop.encode()) > self._limits.stop_bytes:
                raise invalid(f"sampling.stop[{index}]", f"is longer than {self._limits.stop_bytes} bytes")
        return list(sampling.stop)
