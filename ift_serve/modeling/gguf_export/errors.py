"""Errors for models that cannot be written as GGUF."""

from __future__ import annotations

_ADVICE = "write --format safetensors, and convert that with llama.cpp's convert_hf_to_gguf.py"


class GgufError(ValueError):
    """A model or tokenizer whose GGUF would not compute the same; the message says what to do instead."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"GGUF: {reason}; {_ADVICE}")
