"""A tokenizer as GGUF describes one: a vocabulary, its merges, and the name of a way to split text into words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ift_serve.modeling.gguf_export.errors import GgufError

_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A byte-level BPE: ``kinds`` are GGUF's token types; ``splits`` is its name of the pre-tokenizer."""

    splits: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    adds_bos: bool
    adds_eos: bool

    @classmethod
    def of(cls, tokenizer: Any, rows: int) -> Vocabulary:
        """``rows``: those of the embeddings. Raises GgufError for a tokenizer that GGUF cannot describe exactly."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise GgufError("the tokenizer has no tokenizer.json")
        fields = json.loads(backend.to_str())
        _check_kind(fields)
        tokens, kinds = _tokens(fields, rows)
        adds_bos, adds_eos = _added(tokenizer)
        return cls(_splits(fields), tokens, kinds, _merges(fields["model"]), adds_bos, adds_eos)


def _check_kind(fields: dict[str, Any]) -> None:
    model = fields["model"]
    if model["type"] != "BPE" or model.get("byte_fallback"):
        kind = "SentencePiece-like" if model.get("byte_fallback") else model["type"]
        raise GgufError(f"the tokenizer is {kind}, and only byte-level BPE is written")
    if model.get("dropout") or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise GgufError("the tokenizer's BPE drops merges or marks parts of words")
    if fields.get("normalizer") is not None:
        raise GgufError(f"the tokenizer changes text first (normalizer {fields['normalizer']['type']})")


def _splits(fields: dict[str, Any]) -> str:
    """GGUF names ways to split; each is recognised by its whole definition, never guessed from ids."""
    stages = fields.get("pre_tokenizer") or {}
    stages = stages["pretokenizers"] if stages.get("type") == "Sequence" else [stages]
    last = stages[-1]
    found = None
    if last.get("type") == "ByteLevel" and not last["add_prefix_space"]:
        before = [{key: value for key, value in stage.items() if value is not False} for stage in stages[:-1]]
        words = {"type": "Split", "pattern": {"Regex": _LLAMA3_WORDS}, "behavior": "Isolated"}
        if last.get("use_regex", True):
            found = {"[]": "gpt-2", str([{"type": "Digits", "individual_digits": True}]): "smollm"}.get(str(before))
        elif before == [words]:
            found = "llama-bpe"
    # A reader takes whole words that are tokens without merging them under this name, and under no other.
    if found is None or bool(fields["model"].get("ignore_merges")) != (found == "llama-bpe"):
        raise GgufError("the tokenizer splits text into words in a way that has no name there")
    return found


def _tokens(fields: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    tokens = [f"[PAD{row}]" for row in range(rows)]
    kinds = [_UNUSED] * rows
    added = {token["id"]: token for token in fields["added_tokens"]}
    ids = {**fields["model"]["vocab"], **{token["content"]: index for index, token in added.items()}}
    for token, index in ids.items():
        if index >= rows:
            raise GgufError(f"token {token!r} has id {index}, and the embeddings have {rows} rows")
        tokens[index], kinds[index] = token, _NORMAL
    for index, token in added.items():
        if token["single_word"] or token["lstrip"] or token["rstrip"]:
            raise GgufError(f"token {token['content']!r} takes the spaces beside it, or stands as a word only")
        kinds[index] = _CONTROL if token["special"] else _USER_DEFINED
    return tokens, kinds


def _merges(model: dict[str, Any]) -> list[str]:
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    if any(len(pair) != 2 or " " in pair[0] + pair[1] for pair in pairs):
        raise GgufError("a merge of the tokenizer holds a space")
    return [" ".join(pair) for pair in pairs]


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
