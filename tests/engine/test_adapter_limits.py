"""How much host memory adapters may take: as asked, else by what the cache leaves."""

from __future__ import annotations

import pytest

from ift_serve.engine.adapters.limits import AdapterLimits


@pytest.mark.parametrize(
    ("asked", "free", "cache", "expected"),
    [
        (700, 10_000, 4_000, 700),
        (None, 10_000, 4_000, 3_000),
        (None, 10_000, 0, 5_000),
        # A cache that may take all of it, or was asked to be larger than that.
        (None, 10_000, 10_000, 1_250),
        (None, 10_000, 50_000, 1_250),
        # Nothing is free: a limit of 0 would be none.
        (None, 0, 1_000, 1),
    ],
)
def test_the_limit_of_bytes(asked: int | None, free: int, cache: int, expected: int) -> None:
    assert AdapterLimits.within(9, asked, free, cache) == AdapterLimits(9, expected)


def test_a_limit_of_zero_is_none() -> None:
    assert AdapterLimits().have_room(10_000, 1 << 60, 1 << 60)
    assert AdapterLimits(2).have_room(1, 1 << 60, 1) and not AdapterLimits(2).have_room(2, 0, 0)
    assert AdapterLimits(bytes=10).have_room(99, 4, 6) and not AdapterLimits(bytes=10).have_room(0, 4, 7)
