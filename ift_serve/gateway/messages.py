"""A conversation in OpenAI's messages, to the client's prompt."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from ift_serve.client import Message, Part, Prompt
from ift_serve.gateway.errors import invalid
from ift_serve.gateway.fields import Strict

_ROLES: dict[str, Literal["system", "user", "assistant", "tool"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


class TextPart(Strict):
    """A piece of text. ``segment``, of our own: whether it is what is asked for, or material."""

    type: Literal["text"]
    text: str
    segment: Literal["instruction", "context"] | None = None


class CalledFunction(Strict):
    """``arguments``: JSON, as the model wrote it."""

    name: str
    arguments: str


class ToolCall(Strict):
    """A call that the model made in an earlier answer."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class FunctionFields(Strict):
    """A function that the model may call. ``parameters``: a JSON schema."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Literal[False] | None = None


class Tool(Strict):
    """Only functions."""

    type: Literal["function"]
    function: FunctionFields

    def shown(self) -> dict[str, Any]:
        """As chat templates take it."""
        function = self.function.model_dump(exclude_none=True, exclude={"strict"})
        return {"type": "function", "function": function}


class MessageFields(Strict):
    """One message.

    ``reasoning_content``: a thought of an earlier answer, as this gateway hands it out; it is no part of the prompt.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True, max_length=4096)] | None = None
    type: Literal["text", "message"] | None = None
    reasoning_content: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None


def prompt_of(messages: list[MessageFields], *, context: str | None, continue_final: bool, tools: list[Tool]) -> Prompt:
    """The conversation. ``context``: material behind the last user message. Raises ApiError."""
    listed = [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]
    if context is not None:
        asked = next((index for index in reversed(range(len(listed))) if listed[index].role == "user"), None)
        if asked is None:
            raise invalid("context", "belongs to a user message, and there is none")
        parts = (*listed[asked].parts, Part("\n\n"), Part(context, is_context=True))
        listed[asked] = Message("user", parts=parts)
    return Prompt.from_messages(listed, continue_final=continue_final, tools=[tool.shown() for tool in tools])


def _message(message: MessageFields, path: str) -> Message:
    if message.role != "assistant":
        for field in ("reasoning_content", "tool_calls"):
            if getattr(message, field) is not None:
                raise invalid(f"{path}.{field}", "belongs to a message of the role assistant")
    return Message(
        _ROLES[message.role],
        parts=_parts(message, path),
        tool_calls=tuple(_call(call, f"{path}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls or ())),
        tool_call_id=message.tool_call_id or "",
        name=message.name or "",
    )


def _parts(message: MessageFields, path: str) -> tuple[Part, ...]:
    if message.content is None:
        if not message.tool_calls:
            raise invalid(f"{path}.content", "is missing", "missing_required_parameter")
        return (Part(""),)
    if isinstance(message.content, str):
        return (Part(message.content),)
    if not message.content:
        raise invalid(f"{path}.content", "is empty; give at least one part")
    if message.role == "assistant" and any(part.segment is not None for part in message.content):
        raise invalid(f"{path}.content", "has a segment, which is for what the model is asked")
    return tuple(Part(part.text, part.segment == "context") for part in message.content)


def _call(call: ToolCall, path: str) -> dict[str, Any]:
    """As chat templates take it, which write the arguments themselves. Raises ApiError."""
    try:
        arguments = json.loads(call.function.arguments)
    except (ValueError, RecursionError):
        raise invalid(f"{path}.function.arguments", "is not JSON") from None
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}
