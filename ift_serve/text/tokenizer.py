"""Loads a model's tokenizer, without torch where that is possible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_GENERIC = {"PreTrainedTokenizerFast", "TokenizersBackend"}
"""Class names for which ``tokenizer.json`` says everything, so that AutoTokenizer would give the same object."""


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a directory or hub id; code that comes with a model is never run.

    AutoTokenizer imports torch: 400 MB and seconds that a process which only renders text should not pay.
    Raises OSError, ValueError.
    """
    if _is_generic(Path(path)):
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(path)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, trust_remote_code=False)


def _is_generic(directory: Path) -> bool:
    """Whether the directory names a class that has no behaviour of its own."""
    try:
        config = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        isinstance(config, dict)
        and config.get("tokenizer_class") in _GENERIC
        and "auto_map" not in config
        and (directory / "tokenizer.json").is_file()
    )
