"""Masks of tokens that are put together from a few ids, or from other masks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ift_serve.engine.sequences.step import TokenMask


class AllBut:
    """A mask of everything but a few tokens. ``size``: tokens that there are."""

    def __init__(self, token_ids: Iterable[int], size: int) -> None:
        bits = np.full(-(-size // 32), 0xFFFFFFFF, dtype=np.uint32)
        for token_id in token_ids:
            bits[token_id // 32] &= ~np.uint32(1 << token_id % 32)
        self._words = bits.view(np.int32)

    def words(self) -> NDArray[np.int32]:
        return self._words


class Both:
    """The intersection of two masks."""

    def __init__(self, first: TokenMask, second: TokenMask) -> None:
        self._masks = first, second

    def words(self) -> NDArray[np.int32]:
        first, second = self._masks
        return first.words() & second.words()
