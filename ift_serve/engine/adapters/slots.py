"""Slots of adapters on the device: a fixed number; the least recently used one that is idle is replaced."""

from __future__ import annotations

from collections import OrderedDict

from ift_serve.engine.adapters.version import AdapterVersion


class SlotPool:
    """Slots ``1 .. count`` (0 is the base model). A version in use keeps its slot; an unused one may lose it.

    Which slot a version has, and how many requests run in it, stands on the version itself. Nothing here touches
    memory: ``take`` says what has to be placed where.
    """

    def __init__(self, count: int) -> None:
        self._free = list(range(count, 0, -1))
        self._idle: OrderedDict[AdapterVersion, None] = OrderedDict()
        self._holders: dict[AdapterVersion, None] = {}
        self.resident: list[str] = []
        """``name@version`` of every one that has a slot. A new list with each change."""

    def can_take(self, adapter: AdapterVersion) -> bool:
        """Whether ``take`` would succeed."""
        return bool(adapter.slot or self._free or self._idle)

    def take(self, adapter: AdapterVersion) -> bool:
        """A slot for one more request; one must be available. True: place the adapter there first."""
        fresh = not adapter.slot
        if fresh:
            if not self._free:
                evicted, _ = self._idle.popitem(last=False)
                self._free.append(evicted.slot)
                evicted.slot = 0
                del self._holders[evicted]
            adapter.slot = self._free.pop()
            self._holders[adapter] = None
            self.resident = [holder.key for holder in self._holders]
        self._idle.pop(adapter, None)
        adapter.running += 1
        return fresh

    def give_back(self, adapter: AdapterVersion) -> None:
        """One request less; the last one leaves the adapter where it is, for others or to be replaced."""
        adapter.running -= 1
        if not adapter.running:
            self._idle[adapter] = None

    def drop(self, adapter: AdapterVersion) -> int | None:
        """Free the slot of an adapter that no request uses; returns which one that was."""
        assert not adapter.running, "an adapter in use cannot be dropped"
        if not adapter.slot:
            return None
        slot, adapter.slot = adapter.slot, 0
        del self._idle[adapter], self._holders[adapter]
        self.resident = [holder.key for holder in self._holders]
        self._free.append(slot)
        return slot
