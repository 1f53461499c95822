"""The slots of the device: one adapter each, kept while requests run in it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.engine.adapters.slots import SlotPool
from ift_serve.engine.adapters.version import AdapterMetadata, AdapterVersion
from ift_serve.engine.protocol.adapter import LoadAdapter


def version(number: int) -> AdapterVersion:
    source = LoadAdapter(request_id="", name=str(number), path="", shown_path="")
    return AdapterVersion(source.name, source, AdapterMetadata("0", 4, [], 1, False, False, False))


@settings(max_examples=100, deadline=None)
@given(count=st.integers(1, 4), moves=st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=60))
def test_slots_belong_to_one_adapter_at_a_time(count: int, moves: list[tuple[bool, int]]) -> None:
    pool = SlotPool(count)
    adapters = [version(number) for number in range(7)]
    held: dict[int, int] = {}
    placed: dict[int, int] = {}
    for take, number in moves:
        adapter = adapters[number]
        if take and pool.can_take(adapter):
            if pool.take(adapter):
                placed[adapter.slot] = number
            assert 1 <= adapter.slot <= count
            assert placed[adapter.slot] == number, "the slot holds another adapter"
            assert held.setdefault(number, adapter.slot) == adapter.slot, "an adapter in use moved"
        elif not take and adapter.running:
            pool.give_back(adapter)
            if not adapter.running:
                del held[number]
        assert len(set(held.values())) == len(held)
        assert len({a.slot for a in adapters if a.slot}) == sum(1 for a in adapters if a.slot), "two in one slot"
        assert pool.can_take(version(7)) == (len(held) < count)


def test_the_one_unused_for_longest_goes_first() -> None:
    pool, (a, b, c) = SlotPool(2), (version(number) for number in range(3))
    for adapter in (a, b, a):
        pool.take(adapter)
        pool.give_back(adapter)
    assert pool.take(c) and (a.slot, b.slot, c.slot) == (1, 0, 2), "b was unused for longer"
    assert pool.drop(a) == 1 and pool.drop(b) is None and a.slot == 0
