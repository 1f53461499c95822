"""Requests of an evaluation, each with the plain values that identify it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ift_serve.client import Prompt
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer to one prompt: ``repeat`` counts the samples of one prompt from 0, ``seed`` is the run's.

    ``turns``: what the user says after the answer, and after the next: each is asked with all that was said before.
    """

    prompt: Prompt
    settings: DecodingSettings = field(default_factory=DecodingSettings)
    seed: int = 0
    repeat: int = 0
    turns: tuple[str, ...] = ()

    def described(self) -> dict[str, Any]:
        """Everything that the answer depends on, apart from the model."""
        return {
            "kind": "generation",
            "prompt": prompt_values(self.prompt),
            "turns": list(self.turns),
            "settings": self.settings.described(),
            "seed": self.seed,
            "repeat": self.repeat,
        }

    @property
    def sampling_seed(self) -> int:
        """Its own for each prompt and repeat: one seed for all would give every prompt the same noise. 63 bits."""
        values = [self.seed, self.repeat, prompt_values(self.prompt)]
        return int.from_bytes(hashlib.sha256(canonical(values).encode()).digest()[:8], "little") >> 1


@dataclass(frozen=True, slots=True)
class Continuations:
    """Log-probabilities of continuations of one context, asked in one call."""

    context: Prompt
    continuations: tuple[str, ...]
    adapter: str = ""

    def described_each(self) -> list[dict[str, Any]]:
        """What each score depends on; not on what is asked along with it."""
        context = prompt_values(self.context)
        return [
            {"kind": "continuation", "context": context, "continuation": text, "adapter": self.adapter}
            for text in self.continuations
        ]


@dataclass(frozen=True, slots=True)
class WholeText:
    """The log-probability of a text, each token once."""

    text: str
    adapter: str = ""

    def described(self) -> dict[str, Any]:
        """Everything that the score depends on, apart from the model."""
        return {"kind": "text", "text": self.text, "adapter": self.adapter}


Request = Generation | Continuations | WholeText


def prompt_values(prompt: Prompt) -> dict[str, Any]:
    """The fields of a prompt that are set."""
    messages = [{"role": m.role, "text": m.text, "context": m.context} for m in prompt.messages]
    values = {
        "instruction": prompt.instruction,
        "context": prompt.context,
        "messages": messages,
        "continue_final_message": prompt.continue_final_message,
        "text": prompt.text,
        "without_special_tokens": prompt.without_special_tokens,
        "token_ids": list(prompt.token_ids),
    }
    # An empty text is a prompt of its own: the beginning of a text.
    return {name: value for name, value in values.items() if value or (name == "text" and value is not None)}


def canonical(values: Mapping[str, Any] | list[Any]) -> str:
    """The same text for the same values."""
    return json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
