"""A tokenizer as GGUF describes one: tokens with their kinds, and how text is cut into them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ift_serve.modeling.gguf_export import byte_level, sentencepiece
from ift_serve.modeling.gguf_export.errors import GgufError
from ift_serve.modeling.gguf_export.text_rules import TextRules

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``kinds`` are GGUF's token types. ``scores``: of each token, for a SentencePiece-like tokenizer only."""

    rules: TextRules
    tokens: list[str]
    kinds: list[int]
    scores: list[float] | None
    adds_bos: bool
    adds_eos: bool

    @classmethod
    def of(cls, tokenizer: Any, rows: int) -> Vocabulary:
        """``rows``: those of the embeddings. Raises GgufError for a tokenizer that GGUF cannot describe."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise GgufError("the tokenizer has no tokenizer.json")
        fields = json.loads(backend.to_str())
        model = fields["model"]
        if model["type"] != "BPE":
            raise GgufError(f"the tokenizer is {model['type']}, and only BPE is written")
        if model.get("dropout") or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            raise GgufError("the tokenizer's BPE drops merges or marks parts of words")
        rules = (sentencepiece if model.get("byte_fallback") else byte_level).text_rules(fields)
        tokens, kinds = _tokens(fields, rows)
        scores = None if rules.scores is None else [rules.scores.get(token, 0.0) for token in tokens]
        return cls(rules, tokens, kinds, scores, *_added(tokenizer))


def _tokens(fields: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    tokens = [f"[PAD{row}]" for row in range(rows)]
    kinds = [_UNUSED] * rows
    model = fields["model"]
    added = {token["id"]: token for token in fields["added_tokens"]}
    ids = {**model["vocab"], **{token["content"]: index for index, token in added.items()}}
    for token, index in ids.items():
        if index >= rows:
            raise GgufError(f"token {token!r} has id {index}, and the embeddings have {rows} rows")
        is_byte = model.get("byte_fallback") and token in sentencepiece.BYTES
        tokens[index], kinds[index] = token, _BYTE if is_byte else _NORMAL
    for index, token in added.items():
        if token["single_word"] or token["lstrip"] or token["rstrip"]:
            raise GgufError(f"token {token['content']!r} takes the spaces beside it, or stands as a word only")
        kinds[index] = _CONTROL if token["special"] else _USER_DEFINED
    if model.get("byte_fallback") and model.get("unk_token") in ids:
        kinds[ids[model["unk_token"]]] = _UNKNOWN
    return tokens, kinds


def _added(tokenizer: Any) -> tuple[bool, bool]:
    """Whether a text gets the begin token before it and the end token after it."""
    plain = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a", add_special_tokens=True)
    for bos in (False, True):
        for eos in (False, True):
            before = [tokenizer.bos_token_id] if bos else []
            if whole == before + plain + ([tokenizer.eos_token_id] if eos else []):
                return bos, eos
    raise GgufError("the tokenizer adds other tokens to a text than the begin and the end token")
