"""A random order of any number of things that takes no memory."""

from __future__ import annotations

import hashlib

_ROUNDS = 4
_MASK = 2**64 - 1


class Permutation:
    """``p[i]`` for ``i`` in ``range(n)`` is a permutation that depends on the key alone.

    A Feistel network over the next even power of two, walked until it lands below ``n`` (Black and Rogaway,
    "Ciphers with arbitrary finite domains", 2002).
    """

    def __init__(self, n: int, *key: object) -> None:
        self.n = n
        self._half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
        self._low = (1 << self._half) - 1
        digest = hashlib.sha256(repr(key).encode()).digest()
        self._keys = [int.from_bytes(digest[8 * i : 8 * i + 8], "little") | 1 for i in range(_ROUNDS)]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.n:
            raise IndexError(index)
        while True:
            index = self._mix(index)
            if index < self.n:
                return index

    def _mix(self, index: int) -> int:
        left, right = index >> self._half, index & self._low
        for key in self._keys:
            mixed = ((right + key) * 0x9E3779B97F4A7C15 ^ key) & _MASK
            mixed = (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9 & _MASK
            left, right = right, left ^ ((mixed >> 32) & self._low)
        return left << self._half | right
