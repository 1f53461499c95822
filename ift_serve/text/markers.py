"""Control tokens: which markers a tokenizer has, and how text that only looks like one stays text."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, models

from ift_serve.text.message import PromptError

_LETTERS = str.maketrans("0123456789abcdef", "ghijklmnopqrstuv")
_NO_TOKEN = "\0none"


class Markers:
    """The control tokens of one tokenizer, each with a secret name.

    A marker is an added token that is special, or that is more than white space, letters and digits: ``<think>`` is
    one; a run of spaces or a word that was added to the vocabulary is none.

    ``backend`` is the tokenizer with the markers renamed: it gives the ids of the original for text in which
    :meth:`write` has put the secret names in place of the markers. A marker that stays as it is typed is text to it.
    The names are drawn anew in every process, so no caller can write one.
    """

    def __init__(self, backend: Any) -> None:
        added = backend.get_added_tokens_decoder()
        # Of one length, so that none begins another; letters only, which no normaliser tells apart from a word.
        stem = secrets.token_hex(16)
        self._names = {
            token.content: f"{stem}{index:06x}".translate(_LETTERS)
            for index, token in enumerate(added.values())
            if _is_marker(token)
        }
        self.ids = {index: token.content for index, token in added.items() if token.content in self._names}
        self._finder = _finder(backend, added)
        self.backend = _renamed(backend, self._names) if self._names else backend
        for index, content in self.ids.items():
            if self.backend.token_to_id(self._names[content]) != index:
                raise PromptError("tokenizer", f"its control token {content!r} cannot be told from typed text")

    def find(self, texts: Sequence[str]) -> list[list[tuple[int, int, str]]]:
        """Start, end and content of every marker in each text, as the tokenizer would take it."""
        if not self._names or not texts:
            return [[] for _ in texts]
        return [self._found(t, e) for t, e in zip(texts, self._finder.encode_batch(list(texts)), strict=True)]

    def _found(self, text: str, encoding: Any) -> list[tuple[int, int, str]]:
        found = []
        for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
            if token in self._names:
                # Some tokens take the white space around them along.
                piece = text[start:end]
                start += len(piece) - len(piece.lstrip())
                found.append((start, start + len(piece.strip()), token))
        return found

    def write(self, texts: Sequence[str]) -> list[str]:
        """The texts with every marker as its secret name."""
        written = []
        for text, found in zip(texts, self.find(texts), strict=True):
            pieces, place = [], 0
            for start, end, content in found:
                pieces += [text[place:start], self._names[content]]
                place = end
            written.append("".join([*pieces, text[place:]]))
        return written


def _is_marker(token: Any) -> bool:
    content = token.content.replace("\u2581", "")
    return bool(content) and not content.isspace() and (token.special or not content.isalnum())


def _finder(backend: Any, added: dict[int, Any]) -> Any:
    """A tokenizer that knows the added tokens only: everything between them is one unknown word."""
    finder = Tokenizer(models.WordLevel({_NO_TOKEN: 0}, unk_token=_NO_TOKEN))
    if backend.normalizer is not None:
        finder.normalizer = backend.normalizer
    for token in added.values():
        (finder.add_special_tokens if token.special else finder.add_tokens)([token])
    return finder


def _renamed(backend: Any, names: dict[str, str]) -> Any:
    """The tokenizer with other contents for some added tokens, in its model's vocabulary too."""
    fields = json.loads(backend.to_str())
    fields["truncation"] = fields["padding"] = None
    for token in fields["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = fields["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): index for piece, index in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        model["merges"] = [pair for pair in model["merges"] if not _touches(pair, names, prefix)]
    return Tokenizer.from_str(json.dumps(fields))


def _touches(pair: Any, names: dict[str, str], prefix: str) -> bool:
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return left in names or right in names or left + right.removeprefix(prefix) in names
