"""Which adapters are on the device: a fixed number of slots, the least recently used unused one goes first."""

from __future__ import annotations

from collections import OrderedDict


class SlotPool:
    """Slots ``1 .. count`` (0 is the base model). A key in use keeps its slot; an unused one may lose it.

    Nothing here touches memory: ``take`` says what has to be placed where.
    """

    def __init__(self, count: int) -> None:
        self._free = list(range(count, 0, -1))
        self._slots: dict[str, int] = {}
        self._users: dict[str, int] = {}
        self._idle: OrderedDict[str, int] = OrderedDict()

    def is_resident(self, key: str) -> bool:
        """Whether the adapter has a slot already."""
        return key in self._slots

    def can_take(self, key: str) -> bool:
        """Whether ``take`` would succeed."""
        return key in self._slots or bool(self._free) or bool(self._idle)

    def take(self, key: str) -> tuple[int, bool]:
        """A slot for one more user, and whether the adapter must be placed there first. One must be available."""
        fresh = key not in self._slots
        if fresh:
            if not self._free:
                evicted, slot = self._idle.popitem(last=False)
                del self._slots[evicted]
                self._free.append(slot)
            self._slots[key] = self._free.pop()
        self._idle.pop(key, None)
        self._users[key] = self._users.get(key, 0) + 1
        return self._slots[key], fresh

    def give_back(self, key: str) -> None:
        """One user less; the last one leaves the adapter where it is, for others or to be replaced."""
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self._idle[key] = self._slots[key]

    def drop(self, key: str) -> int | None:
        """Forget an adapter that nobody uses; returns the slot it had."""
        if key not in self._slots:
            return None
        assert key not in self._users, "an adapter in use cannot be dropped"
        slot = self._slots.pop(key)
        del self._idle[key]
        self._free.append(slot)
        return slot
