"""Host memory of adapters: which versions are in it, within the limits, and which is evicted for another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from ift_serve.engine.adapters.limits import AdapterLimits
from ift_serve.engine.adapters.version import AdapterVersion
from ift_serve.engine.protocol.adapter import AdapterState


class HostMemory:
    """Versions that are in host memory or are being read into it, the one used longest ago first.

    A version that requests use, that drains, or that is being read, stays; with ``evicts`` false so do all others.
    Nothing here touches memory or states: ``victims`` says what has to go.
    """

    def __init__(self, limits: AdapterLimits, *, evicts: bool) -> None:
        self._limits = limits
        self._evicts = evicts
        self._held: OrderedDict[AdapterVersion, None] = OrderedDict()
        self.bytes = 0
        """Of all that are held."""

    def __contains__(self, adapter: AdapterVersion) -> bool:
        return adapter in self._held

    def __len__(self) -> int:
        return len(self._held)

    def take(self, adapter: AdapterVersion) -> None:
        """A version is held from now on, and was used last; one that is held already was used."""
        if adapter not in self._held:
            self.bytes += adapter.metadata.bytes
            self._held[adapter] = None
        self._held.move_to_end(adapter)

    def leave(self, adapter: AdapterVersion) -> None:
        """A version is not held any more; one that is not held is ignored."""
        if adapter in self._held:
            self.bytes -= adapter.metadata.bytes
            del self._held[adapter]

    def note_use(self, adapter: AdapterVersion) -> None:
        """A request begins with a version or ends; one that is not held is ignored."""
        if adapter in self._held:
            self._held.move_to_end(adapter)

    def has_room(self, size: int, leaving: Collection[AdapterVersion] = ()) -> bool:
        """Whether one more of ``size`` bytes fits beside all but those that are ``leaving``, without evicting any."""
        return self._limits.have_room(*self._without(leaving), size)

    def victims(self, name: str, size: int, leaving: Collection[AdapterVersion] = ()) -> list[AdapterVersion]:
        """What must be evicted for one more of ``size`` bytes, called ``name``, to fit beside all but the ``leaving``.

        Raises RefusedError (OVERLOADED) where those that stay leave no room.
        """
        count, total = self._without(leaving)
        chosen: list[AdapterVersion] = []
        for adapter in self._held:
            if self._limits.have_room(count, total, size):
                break
            if adapter not in leaving and self._may_go(adapter):
                chosen.append(adapter)
                count, total = count - 1, total - adapter.metadata.bytes
        self._limits.check(name, count, total, size, evicts=self._evicts)
        return chosen

    def _without(self, leaving: Collection[AdapterVersion]) -> tuple[int, int]:
        """How many are held beside those, and their bytes."""
        gone = [adapter for adapter in leaving if adapter in self._held]
        return len(self._held) - len(gone), self.bytes - sum(adapter.metadata.bytes for adapter in gone)

    def _may_go(self, adapter: AdapterVersion) -> bool:
        return self._evicts and adapter.is_resident and not adapter.users and adapter.state is AdapterState.READY
