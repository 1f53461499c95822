"""Evicted versions that requests wait for: those for which there is no room yet, and those that are being read."""

from __future__ import annotations

from ift_serve.engine.adapters.version import AdapterVersion


class Returns:
    """In the order in which they were asked for; each is read once there is room for it, the first one first."""

    def __init__(self) -> None:
        self._asked: dict[AdapterVersion, int | None] = {}
        """The number under which each is read; None before."""
        self._reading: dict[int, AdapterVersion] = {}

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def is_reading(self) -> bool:
        """Whether any of them is being read."""
        return any(number is not None for number in self._asked.values())

    def ask(self, adapter: AdapterVersion) -> None:
        """A request waits for a version."""
        self._asked[adapter] = None

    def first_waiting(self) -> AdapterVersion | None:
        """What is to be read next, if anything waits."""
        return next((adapter for adapter, number in self._asked.items() if number is None), None)

    def is_waiting(self, adapter: AdapterVersion) -> bool:
        """Whether it was asked for and is not being read yet."""
        return adapter in self._asked and self._asked[adapter] is None

    def begin(self, adapter: AdapterVersion, number: int) -> None:
        """It is being read under ``number``."""
        self._asked[adapter] = number
        self._reading[number] = adapter

    def finish(self, number: int) -> AdapterVersion | None:
        """What was read under ``number``; None where that is not wanted any more."""
        adapter = self._reading.pop(number, None)
        if adapter is None or self._asked.get(adapter) != number:
            return None
        del self._asked[adapter]
        return adapter

    def drop(self, adapter: AdapterVersion) -> None:
        """Nobody waits for it any more, or it is there."""
        self._asked.pop(adapter, None)
