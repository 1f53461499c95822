"""Seeds of candidates, derived so that they depend on nothing but the request and the candidate's index."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

_MASK = (1 << 64) - 1


def _mix(value: int) -> int:
    """One SplitMix64 output (Steele, Lea and Flood 2014), a bijection of 64-bit integers."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def prompt_seed(seed: int, token_ids: Sequence[int]) -> int:
    """A seed, in ``[0, 2**64)``, for one prompt.

    The noise of a draw depends on seed, step and token id; by the caller's seed alone, answers to many prompts that are
    asked with one seed would have the same noise, and not be independent.
    """
    digest = blake2b(np.asarray(token_ids, dtype="<u4").tobytes(), digest_size=8).digest()
    return _mix(seed & _MASK) ^ int.from_bytes(digest, "little")


def candidate_seed(seed: int, ordinal: int) -> int:
    """A seed, in ``[0, 2**64)``, for one of the sequences that descend from what has ``seed``."""
    return _mix(_mix(seed & _MASK) ^ ordinal)
