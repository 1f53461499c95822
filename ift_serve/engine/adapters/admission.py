"""Lets requests with adapters start as slots allow, in fair order."""

from __future__ import annotations

from operator import attrgetter
from typing import Protocol

from ift_serve.engine.adapters.version import AdapterVersion
from ift_serve.engine.sequences.sequence import Owner

_PATIENCE = 64


class Residency(Protocol):
    """Who has the slots; see ``AdapterRegistry``."""

    def can_enter(self, adapter: AdapterVersion, *, only_resident: bool) -> bool: ...
    def enter(self, adapter: AdapterVersion) -> None: ...
    def exit(self, adapter: AdapterVersion) -> None: ...


class AdapterAdmission:
    """A request holds its adapter's slot while any of its tokens have blocks.

    Of the requests that found no slot, the first by rank (see ``shares``) is served next, and
    stays the first until it starts or ends. Meanwhile requests of the base model pass freely, those of resident
    adapters ``_PATIENCE`` times; then slots are left to run empty for it.
    """

    def __init__(self, residency: Residency | None = None) -> None:
        self._residency = residency
        self._entered: set[Owner] = set()
        self._refused: dict[Owner, None] = {}
        self._first: Owner | None = None
        self._passed = 0
        self.changed = False
        """Whether refused requests might be admitted now. The scheduler resets it when it tries them again."""

    def admits(self, request: Owner) -> bool:
        """Whether a request may start in this step."""
        adapter = request.adapter
        if adapter is None or request in self._entered:
            return True
        assert self._residency is not None
        first = self._first
        behind = first is not None and request is not first and request.rank > first.rank
        patient = not behind or self._passed < _PATIENCE
        if patient and self._residency.can_enter(adapter, only_resident=behind):
            return True
        self._refused[request] = None
        if not behind:
            self._first = request
        return False

    def start(self, request: Owner) -> int:
        """The slot of a request that starts now, or goes on."""
        adapter = request.adapter
        if adapter is None:
            return 0
        if request not in self._entered:
            assert self._residency is not None
            self._residency.enter(adapter)
            self._entered.add(request)
            self._forget(request)
            if self._first is not None:
                self._passed += 1
        return adapter.slot

    def suspend(self, request: Owner) -> None:
        """A request has lost all of its blocks: others may have the slot until it starts again."""
        if request in self._entered:
            assert request.adapter is not None and self._residency is not None
            self._entered.remove(request)
            self._residency.exit(request.adapter)
            self.changed = True

    def end(self, request: Owner) -> None:
        """A request is over, started or not."""
        self._forget(request)
        self.suspend(request)

    def _forget(self, request: Owner) -> None:
        """The request waits no more; those behind it are tried again."""
        if request not in self._refused:
            return
        del self._refused[request]
        self.changed = True
        if request is self._first:
            self._first = min(self._refused, key=attrgetter("rank"), default=None)
            self._passed = 0
