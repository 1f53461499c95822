"""The bytes that each token of a vocabulary adds to a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ift_serve.text.bounds import byte_characters
from ift_serve.text.token_texts import DecoderKind, TokenDecoder


class TokenBytes:
    """Bytes of the tokens of a tokenizer that stand for text, in the middle of a text.

    Control tokens are left out, and so are all tokens of a tokenizer whose decoder does not work token by token.
    """

    def __init__(self, backend: Any, decoder: TokenDecoder, control_ids: Iterable[int]) -> None:
        """``backend``: of the ``tokenizers`` library."""
        added = {index: token.content for index, token in backend.get_added_tokens_decoder().items()}
        vocabulary = {index: token for token, index in backend.get_vocab().items()}
        for index in control_ids:
            vocabulary.pop(index, None)
        self.by_id: dict[int, bytes] = {}
        if decoder.kind is DecoderKind.BYTES:
            self.by_id = _byte_level(vocabulary, added)
        elif decoder.kind is DecoderKind.TOKENS:
            self.by_id = _token_level(backend, decoder, sorted(vocabulary))
        self._by_byte = {data: index for index, data in sorted(self.by_id.items(), reverse=True) if len(data) == 1}

    def blanks(self) -> frozenset[int]:
        """Tokens that are nothing but white space."""
        return frozenset(index for index, data in self.by_id.items() if data.isspace())

    def partial(self) -> dict[int, bytes]:
        """Tokens that begin or end within a UTF-8 character."""
        return {index: data for index, data in self.by_id.items() if not _is_whole(data)}

    def parts_of(self, runs: Iterable[bytes]) -> dict[int, bytes]:
        """Tokens that have bytes of one of the runs where it may begin, go on or end in them."""
        chosen: dict[int, bytes] = {}
        for run in runs:
            begins = tuple(run[:size] for size in range(1, len(run) + 1))
            ends = tuple(run[place:] for place in range(len(run)))
            for index, data in self.by_id.items():
                if data.endswith(begins) or data.startswith(ends) or run in data or (data and data in run):
                    chosen[index] = data
        return chosen

    def spell(self, data: bytes) -> tuple[int, ...] | None:
        """The bytes, one token each; None where the vocabulary lacks one."""
        ids = tuple(self._by_byte.get(data[place : place + 1], -1) for place in range(len(data)))
        return None if -1 in ids else ids


def _byte_level(vocabulary: dict[int, str], added: dict[int, str]) -> dict[int, bytes]:
    bytes_of = {character: byte for byte, character in byte_characters().items()}
    found = {}
    for index, token in vocabulary.items():
        values = None if index in added else [bytes_of.get(character, -1) for character in token]
        found[index] = token.encode() if values is None or -1 in values else bytes(values)
    return found


def _token_level(backend: Any, decoder: TokenDecoder, ids: list[int]) -> dict[int, bytes]:
    """What each token adds behind another one, for which a token with a text is needed."""
    behind = next((ids for ids in (backend.encode(text, add_special_tokens=False).ids for text in "a.") if ids), None)
    if behind is None:
        return {}
    before = len(decoder.decode(behind))
    texts = backend.decode_batch([[*behind, index] for index in ids], skip_special_tokens=False)
    found = {index: text[before:].encode() for index, text in zip(ids, texts, strict=True)}
    return found | {index: decoder.raw(index) for index in ids if decoder.is_byte(index)}


def _is_whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
