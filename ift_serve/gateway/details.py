"""What the server tells beyond OpenAI's fields: the object `ift` of answers and chunks."""

from __future__ import annotations

import dataclasses
from typing import Any

from ift_serve.client import Delta, Generation
from ift_serve.client.types import Usage

_REASONS = {"eos": "stop", "stop": "stop", "length": "length", "deadline": "length", "cancelled": "length"}


def finish_reason(reason: str, *, has_calls: bool = False) -> str | None:
    """OpenAI's word for why a candidate ended; None while it has not. ``has_calls``: whether it calls functions."""
    found = _REASONS.get(reason)
    return "tool_calls" if has_calls and found == "stop" else found


def begun(result: Generation) -> dict[str, Any]:
    """What is known with the first piece: how the answer is made."""
    told: dict[str, Any] = {"seed": result.seed, "adapter": result.adapter, "sampling": _plain(result.sampling)}
    if (applied := result.applied_reasoning) is not None:
        kind = type(applied.settings).__name__
        told["reasoning"] = {
            "kind": {"NoReasoning": "none", "BestOf": "best_of"}.get(kind, kind.lower()),
            **_plain(dataclasses.asdict(applied.settings)),
            "max_total_tokens": applied.max_total_tokens,
        }
    return told


def ended(result: Generation) -> dict[str, Any]:
    """What is known with the last piece: what was decided, and what it took."""
    told: dict[str, Any] = {"usage": dataclasses.asdict(result.usage)}
    if result.conclusion is not None:
        told["conclusion"] = _plain(dataclasses.asdict(result.conclusion))
    return told


def ending(delta: Delta) -> dict[str, Any]:
    """Why a candidate ended, exactly, and what it was ranked by."""
    told: dict[str, Any] = {"finish_reason": delta.finish_reason}
    for name in ("matched_stop", "confidence", "votes"):
        if (value := getattr(delta, name)) is not None:
            told[name] = value
    return told


def usage_of(listed: list[Usage]) -> dict[str, Any]:
    """OpenAI's counts, over all prompts."""

    def total(name: str) -> int:
        return sum(getattr(usage, name) for usage in listed)

    prompt, generated = total("prompt_tokens"), total("generated_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": total("cached_tokens")},
        "completion_tokens_details": {"reasoning_tokens": total("reasoning_tokens")},
    }


def _plain(value: Any) -> Any:
    """Without what is left open, in types that JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items() if one is not None}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
