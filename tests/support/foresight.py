"""Drafts for the paged oracle: tokens that it will draw, with some that it will not among them."""

from __future__ import annotations

import random
from collections.abc import Sequence as Listing

from ift_serve.engine.sequences.sequence import Sequence
from tests.support.paged_oracle import VOCABULARY, PagedOracle, drawn_token, state_of

_MASK = (1 << 64) - 1


class Foresight:
    """The ``Drafts`` of an engine over ``oracle``. ``right``: how many of ten guesses come true."""

    def __init__(self, oracle: PagedOracle, seed: int = 0, right: int = 8, longest: int = 6) -> None:
        self._oracle = oracle
        self._random = random.Random(seed)
        self._right = right
        self._longest = longest

    def plan(self, sequences: Listing[Sequence], room: int, longest: Listing[int]) -> list[list[int]]:
        drafts = []
        for sequence, most in zip(sequences, longest, strict=True):
            count = self._random.randint(0, min(room, most, self._longest))
            room -= count
            drafts.append(self._guess(sequence, count))
        return drafts

    def note(self, seconds: float) -> None:
        assert seconds >= 0

    def _guess(self, sequence: Sequence, count: int) -> list[int]:
        oracle, row, size = self._oracle, sequence.row, self._oracle.block_size
        assert row is not None
        slots = [sequence.table[p // size] * size + p % size for p in range(sequence.computed)]
        total = sum(oracle._slots[slot] for slot in slots) & _MASK
        tokens = list(sequence.tokens)
        for position in range(sequence.computed, len(tokens) + count):
            if position >= len(tokens):
                token = drawn_token(total, row, position - sequence.prompt_length)
                if self._random.randrange(10) >= self._right:
                    token = (token + self._random.randrange(1, VOCABULARY)) % VOCABULARY
                tokens.append(token)
            total = (total + state_of(tokens[position], position, total)) & _MASK
        return tokens[len(sequence.tokens) :]
