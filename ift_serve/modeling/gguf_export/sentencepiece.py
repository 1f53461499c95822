"""SentencePiece's BPE, as of Llama 2 and Mistral: any two neighbours that make a token are merged, best token first.

GGUF stores a score for each token where ``tokenizer.json`` stores the merges in order. The two are the same where every
pair of tokens that makes a token is among the merges, and all merges that make the same token follow one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ift_serve.modeling.gguf_export.errors import GgufError
from ift_serve.modeling.gguf_export.text_rules import TextRules, merge_pairs

BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))
"""Tokens that stand for the bytes of a character that has no token of its own."""
_SPACE = "▁"
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_SPACES_NOTE = (
    "a text that begins with a space, or follows a control token, may get one more space before it than from the "
    "tokenizer: GGUF has a single switch for it"
)


def text_rules(fields: Mapping[str, Any]) -> TextRules:
    """Of a ``tokenizer.json`` with byte fallback. Raises GgufError for what GGUF has no name for."""
    model = fields["model"]
    if missing := sorted(BYTES - set(model["vocab"])):
        raise GgufError(f"the tokenizer is SentencePiece-like and lacks tokens of bytes ({missing[0]})")
    if model.get("ignore_merges"):
        raise GgufError("the tokenizer is SentencePiece-like and takes whole words without merging them")
    adds_space, notes = _spaces(fields)
    return TextRules("llama", "default", scores=_scores(fields), adds_space=adds_space, notes=notes)


def _spaces(fields: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """Whether a space is put before a text, and where readers of GGUF do that otherwise."""
    normalizer, pre_tokenizer = fields.get("normalizer") or {}, fields.get("pre_tokenizer") or {}
    stages = normalizer.get("normalizers", [normalizer] if normalizer else [])
    if not pre_tokenizer:
        if stages == [{"type": "Prepend", "prepend": _SPACE}, _REPLACE]:
            return True, []
        if stages == [_REPLACE]:
            return False, []
    elif pre_tokenizer.get("type") == "Metaspace" and not stages and not pre_tokenizer.get("split", True):
        adds = pre_tokenizer.get("prepend_scheme") != "never"
        if pre_tokenizer.get("replacement") == _SPACE:
            return adds, [_SPACES_NOTE] if adds else []
    raise GgufError("the tokenizer is SentencePiece-like and changes or splits text in a way that has no name there")


def _scores(fields: Mapping[str, Any]) -> dict[str, float]:
    """The better, the earlier a token is merged; those that are never merged are worse than all others."""
    model = fields["model"]
    added = {token["content"] for token in fields["added_tokens"]}
    own = {token for token in model["vocab"] if token not in added and token not in BYTES}
    merges = merge_pairs(model)
    scores: dict[str, float] = {}
    previous = ""
    for left, right in merges:
        token = left + right
        if token in scores and token != previous:
            raise GgufError(
                f"the tokenizer's merges that make {token!r} have others between them, so no score says them"
            )
        scores.setdefault(token, -float(len(scores)))
        previous = token
    known = set(merges)
    for pair in _pairs(own):
        if pair not in known:
            raise GgufError(
                f"the tokenizer has a token of {pair[0]!r} and {pair[1]!r}, which it does not merge, and "
                "SentencePiece would"
            )
    worst = -float(len(scores))
    return {token: scores.get(token, worst) for token in own}


def _pairs(tokens: set[str]) -> Iterator[tuple[str, str]]:
    """All pairs of tokens that make a token."""
    for token in sorted(tokens):
        for end in range(1, len(token)):
            if token[:end] in tokens and token[end:] in tokens:
                yield token[:end], token[end:]
