"""Byte-level BPE, as of GPT-2, Llama 3 and Qwen: merges in order, between words that are split off first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ift_serve.modeling.gguf_export.errors import GgufError
from ift_serve.modeling.gguf_export.text_rules import TextRules, merge_pairs

_BEFORE_NUMBERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_AFTER_NUMBERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = {
    rf"{_BEFORE_NUMBERS}\p{{N}}{{1,3}}{_AFTER_NUMBERS}": "llama-bpe",
    rf"{_BEFORE_NUMBERS}\p{{N}}{_AFTER_NUMBERS}": "qwen2",
}
"""GGUF's names of patterns for words."""
_NFC_NOTE = "text is not brought into Unicode's composed form (NFC) first, as the tokenizer does; most text is in it"


def text_rules(fields: Mapping[str, Any]) -> TextRules:
    """Of a ``tokenizer.json``. Raises GgufError for what GGUF has no name for."""
    normalizer = (fields.get("normalizer") or {}).get("type")
    if normalizer not in (None, "NFC"):
        raise GgufError(f"the tokenizer changes text first (normalizer {normalizer})")
    notes = [_NFC_NOTE] if normalizer else []
    return TextRules("gpt2", _splits(fields), merges=_merges(fields["model"]), notes=notes)


def _splits(fields: Mapping[str, Any]) -> str:
    """GGUF names ways to split; each is recognised by its whole definition, never guessed from ids."""
    stages = fields.get("pre_tokenizer") or {}
    stages = stages["pretokenizers"] if stages.get("type") == "Sequence" else [stages]
    last = stages[-1]
    found = None
    if last.get("type") == "ByteLevel" and not last["add_prefix_space"]:
        before = [{key: value for key, value in stage.items() if value is not False} for stage in stages[:-1]]
        if last.get("use_regex", True):
            found = {"[]": "gpt-2", str([{"type": "Digits", "individual_digits": True}]): "smollm"}.get(str(before))
        elif len(before) == 1:
            pattern = (before[0].get("pattern") or {}).get("Regex")
            words = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
            found = _WORDS.get(str(pattern)) if before == [words] else None
    # A reader takes whole words that are tokens without merging them under this name, and under no other.
    if found is None or bool(fields["model"].get("ignore_merges")) != (found == "llama-bpe"):
        raise GgufError("the tokenizer splits text into words in a way that has no name there")
    return found


def _merges(model: Mapping[str, Any]) -> list[str]:
    pairs = merge_pairs(model)
    if any(len(pair) != 2 or " " in pair[0] + pair[1] for pair in pairs):
        raise GgufError("a merge of the tokenizer holds a space")
    return [" ".join(pair) for pair in pairs]
