"""Text of callers to token ids: the one place that tokenises it."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ift_serve.text.bounds import token_bound
from ift_serve.text.markers import Markers
from ift_serve.text.message import PromptError
from ift_serve.text.tails import Tails

TEXT_BYTES = 2**20
_TRIM_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class TextLimits:
    """``tokens``: what the model's context holds, None: any number.

    ``text_bytes``: UTF-8 bytes of one text; ``batch_bytes``: of all texts that are tokenised for one request.
    """

    tokens: int | None = None
    text_bytes: int = TEXT_BYTES
    batch_bytes: int = 8 * TEXT_BYTES


class TextEncoder:
    """Bounds texts before tokenising them, and tokenises without the interpreter lock.

    The library's ``encode`` holds the lock, which would stop every other thread for as long as it takes;
    ``encode_batch`` does not. A text whose bytes cannot fit into the context, even if every token were the longest
    one, is refused unread.
    """

    def __init__(self, backend: Any, limits: TextLimits | None = None) -> None:
        # One text at a time needs no pool of threads, and a pool would let a long text hold up short ones.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.limits = limits or TextLimits()
        fields = json.loads(backend.to_str())
        self.bound = token_bound(fields)
        self.tails = Tails(fields)
        self.markers = Markers(backend)

    def limit_tokens(self, tokens: int) -> None:
        """Set what the model's context holds, once that is known."""
        self.limits = replace(self.limits, tokens=tokens)

    def check(self, texts: Sequence[str], field: str, *, any_length: bool = False) -> None:
        """Raise PromptError where a text, given in pieces, is surely too long.

        ``any_length``: for texts that are cut into windows, which the context does not bound.
        """
        size, limit = sum(map(utf8_length, texts)), self.limits.tokens
        if size > self.limits.text_bytes:
            raise PromptError(field, f"has {size} bytes; at most {self.limits.text_bytes} are tokenised at once")
        if limit is not None and self.bound is not None and not any_length:
            fewest = self.bound.fewest_tokens(texts)
            if fewest > limit:
                raise PromptError(
                    field,
                    f"has {size} bytes, at least {fewest} tokens; the model's context of {limit} leaves no room for "
                    "an answer",
                )

    def batch_ids(
        self, texts: Sequence[str], field: str, *, special: bool = False, written: bool = False
    ) -> list[list[int]]:
        """Ids of the texts of one request, a few at a time; no number of tokens is too many.

        ``written``: as :meth:`encode_written`. Raises PromptError where they have too many bytes together.
        """
        sizes = [utf8_length(text) for text in texts]
        if sum(sizes) > self.limits.batch_bytes:
            raise PromptError(
                field,
                f"has {sum(sizes)} bytes, the context counted once for each continuation; at most "
                f"{self.limits.batch_bytes} are tokenised for one request, so send fewer continuations at once",
            )
        backend = self.markers.backend if written else self.backend
        found: list[list[int]] = []
        batch: list[str] = []
        for text, size in zip(texts, sizes, strict=True):
            self.check([text], field, any_length=True)
            if batch and sum(map(len, batch)) + size > _TRIM_BYTES:
                found += [list(e.ids) for e in self._run(backend, batch, field, special, True)]
                batch = []
            batch.append(text)
        return found + [list(e.ids) for e in self._run(backend, batch, field, special, True)]

    def encode(self, text: str, field: str, *, special: bool = False, any_length: bool = False) -> Any:
        """The encoding of raw text, in which markers are control tokens; ``special`` adds the tokenizer's own."""
        return self.encode_all([text], field, special=special, any_length=any_length)[0]

    def encode_all(
        self, texts: Sequence[str], field: str, *, special: bool = False, any_length: bool = False
    ) -> list[Any]:
        """Encodings of several raw texts; the limit on bytes holds for each. Raises PromptError."""
        for text in texts:
            self.check([text], field, any_length=any_length)
        return self._run(self.backend, texts, field, special, any_length)

    def encode_written(self, texts: Sequence[str], field: str) -> list[Any]:
        """Encodings of texts whose control tokens bear the names of :class:`Markers`; all else in them is text."""
        for text in texts:
            self.check([text], field)
        return self._run(self.markers.backend, texts, field, False, False)

    def _run(self, backend: Any, texts: Sequence[str], field: str, special: bool, any_length: bool) -> list[Any]:
        encodings = list(backend.encode_batch(list(texts), add_special_tokens=special))
        limit = None if any_length else self.limits.tokens
        longest = max(map(len, encodings), default=0)
        if limit is not None and longest > limit:
            del encodings
            _give_back(texts)
            raise PromptError(
                field, f"has {longest} tokens; the model's context of {limit} leaves no room for an answer"
            )
        _give_back(texts)
        return encodings


def utf8_length(text: str) -> int:
    """Bytes of a text; a lone surrogate, which no tokenizer reads, counts as what would stand for it."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _give_back(texts: Sequence[str]) -> None:
    """Return the allocator's free pages after a long text: some 200 bytes of working memory for each of its bytes."""
    if sum(map(len, texts)) >= _TRIM_BYTES and _malloc_trim is not None:
        _malloc_trim(0)


_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
