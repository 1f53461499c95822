"""A completions request: its fields, and what the server is asked for, prompt by prompt."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from ift_serve.client import Prompt
from ift_serve.gateway.asked import Asked, asked_of
from ift_serve.gateway.errors import invalid
from ift_serve.gateway.fields import SharedFields
from ift_serve.gateway.reasoning_fields import Effort
from ift_serve.gateway.response_formats import ResponseFormat, output_of

_Id = Annotated[int, Field(ge=0, lt=2**32)]
_Segment = Literal["template", "instruction", "context", "response"]
_ItemT = TypeVar("_ItemT")
_List = Annotated[list[_ItemT], Field(fail_fast=True)]


class CompletionRequest(SharedFields):
    """Raw text or token ids. ``segments``, ``response_format`` and ``reasoning_effort`` are our own here."""

    prompt: str | _List[str] | _List[_Id] | _List[_List[_Id]]
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: Literal[False] | None = None

    segments: _List[_Segment] | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Effort | None = None


def completion_questions(request: CompletionRequest, context_length: int, most_prompts: int) -> list[Asked]:
    """One question for each prompt. Raises ApiError."""
    prompts = _prompts(request, most_prompts)
    if len(prompts) > most_prompts:
        raise invalid("prompt", f"holds more than {most_prompts} prompts")
    if len(prompts) > 1 and request.stream:
        raise invalid("stream", "is for one prompt; send a request for each")
    shared: dict[str, Any] = {
        "output": output_of(request.response_format, request.regex, request.grammar),
        "most_tokens": request.max_tokens,
        "bounds_thoughts": False,
        "effort": request.reasoning_effort,
        "log_probs": request.logprobs is not None,
        "alternatives": request.logprobs or 0,
        "context_length": context_length,
    }
    listed = isinstance(request.prompt, list) and len(prompts) > 1
    return [
        asked_of(request, prompt, names=_names(f"prompt[{index}]" if listed else "prompt"), **shared)
        for index, prompt in enumerate(prompts)
    ]


def _names(place: str) -> dict[str, str]:
    return {
        "prompt.text.text": place,
        "prompt.tokens.token_ids": place,
        "prompt.tokens": place,
        "prompt": place,
        "text": place,
        "output.json_schema": "response_format",
        "details.top_alternatives": "logprobs",
        "sampling.max_new_tokens": "max_tokens",
    }


def _prompts(request: CompletionRequest, most_prompts: int) -> list[Prompt]:
    given, segments = request.prompt, tuple(request.segments or ())
    if isinstance(given, str):
        prompts = [Prompt.from_text(given)]
    elif not given:
        raise invalid("prompt", "is empty")
    elif isinstance(given[0], int):
        prompts = [Prompt.from_tokens([part for part in given if isinstance(part, int)], segments)]
    else:
        # One more than there may be, which is then refused.
        prompts = [_one(part, index) for index, part in enumerate(given[: most_prompts + 1])]
    if segments and not prompts[0].segments:
        raise invalid("segments", "belongs to a prompt of one list of token ids; raw text has none")
    if segments and len(segments) != len(prompts[0].token_ids):
        raise invalid("segments", f"has {len(segments)} entries for {len(prompts[0].token_ids)} tokens")
    return prompts


def _one(part: object, index: int) -> Prompt:
    if isinstance(part, str):
        return Prompt.from_text(part)
    if isinstance(part, list) and part:
        return Prompt.from_tokens(part)
    raise invalid(f"prompt[{index}]", "is empty")
