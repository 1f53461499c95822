"""What the server is asked for one prompt, from the fields that all requests share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ift_serve.client import Prompt
from ift_serve.client.output import Output
from ift_serve.gateway.errors import invalid
from ift_serve.gateway.fields import SharedFields, stop_strings, token_biases
from ift_serve.gateway.reasoning_fields import Effort, of_effort, within
from ift_serve.gateway.tool_calls import CallFormat

_SAMPLING = (
    "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "n", "adaptive", "ignore_eos", "min_p",
    "p_less", "reasoning_temperature", "repetition_penalty", "stop_token_ids", "target_probability", "top_h", "top_k",
    "top_n_sigma",
)  # fmt: skip
"""Fields that the client calls the same."""
_NAMES = {
    "sampling": "",
    "details": "",
    "output": "",
    "reasoning.max_total_tokens": "max_total_tokens",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt, the client's options, and what the answer shows.

    ``names``: what the caller calls the fields of the gRPC messages. ``calls``: the form in which calls of the
    ``functions`` are read out of the answer; None: they stay text.
    """

    prompt: Prompt
    options: Mapping[str, Any]
    log_probs: bool
    token_details: bool
    names: Mapping[str, str] = field(default_factory=dict)
    calls: CallFormat | None = None
    functions: frozenset[str] = frozenset()

    @property
    def entries_a_token(self) -> int:
        """What is reported of each token: itself, and its alternatives."""
        shown = self.log_probs or self.token_details
        return 1 + int(self.options.get("top_alternatives", 0)) if shown else 0


def asked_of(
    request: SharedFields,
    prompt: Prompt,
    *,
    output: Output | None,
    most_tokens: int | None,
    bounds_thoughts: bool,
    effort: Effort | None,
    log_probs: bool,
    alternatives: int,
    names: Mapping[str, str],
    context_length: int,
) -> Asked:
    """``most_tokens``: bound on tokens, of thought and answer together if it ``bounds_thoughts``. Raises ApiError."""
    if effort is not None and request.reasoning is not None:
        raise invalid("reasoning_effort", "says what reasoning does; give one of them")
    if request.stream_options is not None and not request.stream:
        raise invalid("stream_options", "is for streams")
    options: dict[str, Any] = {name: getattr(request, name) for name in _SAMPLING if getattr(request, name) is not None}
    settings = request.reasoning.settings() if request.reasoning is not None else None
    if effort is not None:
        settings = of_effort(effort, context_length)
    if settings is not None and bounds_thoughts and most_tokens is not None:
        settings, most_tokens = within(settings, most_tokens, chosen=request.reasoning is not None)
    shows_tokens = log_probs or bool(request.token_details)
    options |= {
        "max_new_tokens": most_tokens,
        "stop": stop_strings(request.stop),
        "logit_bias": token_biases(request.logit_bias),
        "priority": request.priority or 0,
        "reasoning": settings,
        "max_total_tokens": request.max_total_tokens,
        "output": output,
        "tokens": shows_tokens,
        "top_alternatives": alternatives,
        "statistics": bool(request.token_details),
        "processed_log_probs": bool(request.processed_log_probs),
    }
    if request.processed_log_probs and not request.token_details:
        raise invalid("processed_log_probs", "needs token_details, which shows them")
    told = {**_NAMES, **names}
    if effort is not None:
        told["reasoning"] = "reasoning_effort"
    if request.adapter is None:
        told["adapter"] = "model"
    return Asked(prompt, options, log_probs, bool(request.token_details), told)
