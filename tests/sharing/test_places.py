"""Places shared by dynamic thresholds: nobody is kept out by those who have many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ift_serve.sharing.places import Places


def fill(places: Places, callers: int) -> None:
    """Greedy callers take one place each, in turn, until none gets another."""
    names = [f"caller {i}" for i in range(callers)]
    while asking := [name for name in names if places.has_room(name)]:
        for name in asking:
            if places.has_room(name):
                places.take(name)


@given(st.integers(1, 200), st.integers(1, 20))
def test_greedy_callers_share_alike_and_leave_as_much(total: int, callers: int) -> None:
    places = Places(total)
    fill(places, callers)
    held = [places.held(f"caller {i}") for i in range(callers)]
    assert max(held) - min(held) <= 1
    if callers < total:
        assert min(held) >= total // (callers + 1) and places.has_room("another") == (places.taken < total)
        assert total - places.taken >= max(held) - 1
    assert places.taken == sum(held) <= total


def test_half_is_what_one_caller_alone_has() -> None:
    for total in range(2, 50, 2):
        places = Places(total)
        fill(places, 1)
        assert places.held("caller 0") == total // 2 and places.has_room("another")


@given(st.integers(1, 12), st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=80))
def test_a_caller_without_places_gets_one_while_any_is_free(total: int, script: list[tuple[str, bool]]) -> None:
    places, held = Places(total), dict.fromkeys("abcd", 0)
    for caller, leaves in script:
        if leaves and held[caller]:
            places.leave(caller)
            held[caller] -= 1
        elif not leaves and places.has_room(caller):
            places.take(caller)
            held[caller] += 1
        taken = sum(held.values())
        assert places.taken == taken <= total and all(places.held(one) == held[one] for one in held)
        assert places.has_room("new") == (taken < total)
