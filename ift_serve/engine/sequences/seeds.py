"""Seeds of candidates, derived so that they depend on nothing but the request and the candidate's index."""

from __future__ import annotations

_MASK = (1 << 64) - 1


def _mix(value: int) -> int:
    """One SplitMix64 output (Steele, Lea and Flood 2014), a bijection of 64-bit integers."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def candidate_seed(seed: int, ordinal: int) -> int:
    """A seed, in ``[0, 2**64)``, for one of the sequences that descend from what has ``seed``."""
    return _mix(_mix(seed & _MASK) ^ ordinal)
