"""A chat completions request: its fields, and what the server is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from ift_serve.gateway.asked import Asked, asked_of
from ift_serve.gateway.errors import invalid
from ift_serve.gateway.fields import SharedFields
from ift_serve.gateway.messages import MessageFields, Tool, prompt_of
from ift_serve.gateway.reasoning_fields import Effort
from ift_serve.gateway.response_formats import ResponseFormat, output_of
from ift_serve.gateway.tool_calls import call_format

_MOST_ALTERNATIVES = 20


class ChatRequest(SharedFields):
    """``reasoning_effort``, ``max_completion_tokens`` and the rest as OpenAI has them; the last three are our own."""

    messages: Annotated[list[MessageFields], Field(fail_fast=True)] = Field(min_length=1, max_length=4096)
    max_completion_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=_MOST_ALTERNATIVES)
    response_format: ResponseFormat | None = None
    reasoning_effort: Effort | None = None
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True)] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True)] | None = Field(default=None, max_length=128)
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: Literal[True] | None = None

    context: str | None = None
    continue_final_message: bool | None = None

    @property
    def most_tokens(self) -> int | None:
        """The bound on tokens, of which there are two names."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


_NAMES = {
    "prompt.conversation.messages": "messages",
    "prompt.conversation.tools": "tools",
    "prompt.conversation": "messages",
    "prompt": "messages",
    "output.json_schema": "response_format",
    "details.top_alternatives": "top_logprobs",
}


def chat_question(request: ChatRequest, context_length: int, template: str) -> Asked:
    """What to ask the server. ``template``: the model's chat template, in Jinja. Raises ApiError."""
    if None not in (request.max_tokens, request.max_completion_tokens) and (
        request.max_tokens != request.max_completion_tokens
    ):
        raise invalid("max_tokens", "is not what max_completion_tokens says; give one of them")
    if request.top_logprobs is not None and not request.logprobs:
        raise invalid("top_logprobs", "needs logprobs")
    tools = [] if request.tool_choice == "none" else request.tools or []
    prompt = prompt_of(
        request.messages,
        context=request.context,
        continue_final=bool(request.continue_final_message),
        tools=tools,
    )
    bound = "max_completion_tokens" if request.max_completion_tokens is not None else "max_tokens"
    asked = asked_of(
        request,
        prompt,
        output=output_of(request.response_format, request.regex, request.grammar),
        most_tokens=request.most_tokens,
        bounds_thoughts=request.max_completion_tokens is not None,
        effort=request.reasoning_effort,
        log_probs=bool(request.logprobs),
        alternatives=request.top_logprobs or 0,
        names={**_NAMES, "sampling.max_new_tokens": bound},
        context_length=context_length,
    )
    if not tools:
        return asked
    return replace(asked, calls=call_format(template), functions=frozenset(tool.function.name for tool in tools))
