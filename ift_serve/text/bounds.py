"""Lower bound of a text's tokens, known before it is tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SHRINKS = {"Prepend": 1, "ByteLevel": 1, "NFD": 1, "NFKD": 4, "NFC": 4, "NFKC": 8, "Lowercase": 4}
"""By how much a normaliser may shorten the UTF-8 of a text: KELVIN SIGN becomes K, a fullwidth letter a plain one."""
_KEEP_EVERYTHING = {"ByteLevel", "Metaspace", "Digits", "FixedLength", "UnicodeScripts"}


@dataclass(frozen=True, slots=True)
class TokenBound:
    """``longest``: the most bytes of text that one token stands for; ``dropped``: bytes that no token stands for."""

    longest: int
    dropped: bytes = b""

    def fewest_tokens(self, texts: Sequence[str]) -> int:
        """No tokenisation of the texts, joined, has fewer tokens."""
        size = 0
        for text in texts:
            data = text.encode(errors="replace")
            size += len(data.translate(None, self.dropped) if self.dropped else data)
        return -(-size // self.longest)


def token_bound(fields: dict[str, Any]) -> TokenBound | None:
    """The bound of a tokenizer, given as its JSON; None where one token may stand for any number of bytes.

    A word that is unknown as a whole, white space that is dropped or collapsed, and control tokens that take the
    white space beside them along make texts of any length few tokens.
    """
    added = fields["added_tokens"]
    shrink = _shrink(fields["normalizer"])
    if shrink is None or not _keeps(fields["pre_tokenizer"]) or any(t["lstrip"] or t["rstrip"] for t in added):
        return None
    vocabulary = fields["model"]["vocab"]
    pieces = list(vocabulary) if isinstance(vocabulary, dict) else [piece for piece, _ in vocabulary]
    # Byte-level pieces are written one character a byte; a character that is not in the vocabulary is at most four.
    is_byte_level = "ByteLevel" in _types(fields["pre_tokenizer"]) | _types(fields["normalizer"])
    own = max((len(p) if is_byte_level else len(p.encode(errors="replace")) for p in pieces), default=4)
    longest = max(own, 4, *(len(t["content"].encode()) for t in added), 4) * shrink
    known = set(pieces)
    if is_byte_level and fields["model"]["type"] == "BPE":
        dropped = bytes(byte for byte, character in byte_characters().items() if character not in known)
        # Behind a normaliser the bytes are no longer those of the text.
        return None if dropped and fields["normalizer"] is not None else TokenBound(longest, dropped)
    return TokenBound(longest) if _every_character_counts(fields["model"], known) else None


def byte_characters() -> dict[int, str]:
    """The character that stands for each byte in byte-level vocabularies: itself where it can be printed."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {b: chr(b) for b in printed} | {b: chr(256 + index) for index, b in enumerate(others)}


def _types(step: dict[str, Any] | None) -> set[str]:
    if step is None:
        return set()
    if step["type"] == "Sequence":
        return set().union(*(_types(s) for s in step.get("normalizers") or step.get("pretokenizers") or []))
    return {step["type"]}


def _shrink(step: dict[str, Any] | None) -> int | None:
    """By how much at most, or None."""
    if step is None:
        return 1
    if step["type"] == "Sequence":
        factor = 1
        for one in step["normalizers"]:
            own = _shrink(one)
            if own is None:
                return None
            factor *= own
        return factor
    if step["type"] == "Replace":
        pattern = step["pattern"].get("String")
        grows = pattern is not None and len(step["content"].encode()) >= len(pattern.encode())
        return 1 if grows else None
    return _SHRINKS.get(step["type"])


def _keeps(step: dict[str, Any] | None) -> bool:
    """Whether no character is dropped between words."""
    if step is None:
        return True
    if step["type"] == "Sequence":
        return all(_keeps(s) for s in step["pretokenizers"])
    if step["type"] in ("Split", "Punctuation"):
        return bool(step["behavior"] != "Removed")
    return step["type"] in _KEEP_EVERYTHING


def _every_character_counts(model: dict[str, Any], known: set[str]) -> bool:
    """Whether characters outside the vocabulary are neither dropped nor joined into one unknown token."""
    if model["type"] not in ("BPE", "Unigram"):
        return False
    if model.get("byte_fallback") and all(f"<0x{byte:02X}>" in known for byte in range(256)):
        return True
    return model["type"] == "BPE" and model.get("unk_token") is not None and not model.get("fuse_unk")
