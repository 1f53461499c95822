"""Loads a model's tokenizer, without torch where that is possible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_GENERIC = {"PreTrainedTokenizerFast", "TokenizersBackend"}
"""Class names for which ``tokenizer.json`` says everything, so that AutoTokenizer would give the same object."""


_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
_LONGEST_CAUSE = 200


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a directory or hub id; code that comes with a model is never run.

    AutoTokenizer imports torch: 400 MB and seconds that a process which only renders text should not pay.
    Raises ValueError, with a sentence for the operator.
    """
    try:
        if _is_generic(Path(path)):
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(path)
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # whatever a library does with files that it does not expect
        raise ValueError(f"{path}: its tokenizer cannot be loaded: {_fault(Path(path), error)}") from error


def _fault(directory: Path, error: Exception) -> str:
    if not directory.is_dir():
        return f"no directory with a model, nor a hub id that can be fetched: {_shown(error)}"
    if not any(directory.iterdir()):
        return "the directory is empty; name one with config.json, *.safetensors and a tokenizer"
    if not any((directory / name).is_file() for name in _FILES):
        return f"the directory holds none of {', '.join(_FILES)}; copy those of the model into it"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (directory / name).is_file() and not _is_json(directory / name):
            return f"{name} is not JSON, or cut off; download it again"
    return _shown(error)


def _shown(error: Exception) -> str:
    cause = " ".join(str(error).split())
    if "trust_remote_code" in cause or "custom code" in cause:
        return "it is code of its own, which is never run; choose a model whose tokenizer is part of transformers"
    return cause[:_LONGEST_CAUSE] or type(error).__name__


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except ValueError:
        return False
    return True


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
