"""Lets requests with adapters start as slots allow, in fair order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ift_serve.engine.adapters import AdapterVersion
    from ift_serve.engine.request import Request

_PATIENCE = 64


class Residency(Protocol):
    """Who has the slots; see ``AdapterRegistry``."""

    def can_enter(self, adapter: AdapterVersion, *, only_resident: bool) -> bool: ...
    def enter(self, adapter: AdapterVersion) -> int: ...
    def exit(self, adapter: AdapterVersion) -> None: ...


class AdapterGate:
    """A request holds its adapter's slot from its start to its end.

    The first request that finds no slot is served next. Meanwhile requests of the base model pass freely, those of
    resident adapters ``_PATIENCE`` times; then slots are left to run empty for it.
    """

    def __init__(self, residency: Residency | None = None) -> None:
        self._residency = residency
        self._entered: set[Request] = set()
        self._first: Request | None = None
        self._passed = 0
        self._turned_away = False

    def begin_step(self) -> None:
        """Plan a new step: who waits is found anew."""
        self._turned_away = False

    def admits(self, request: Request) -> bool:
        """Whether a request may start in this step."""
        adapter = request.adapter
        if adapter is None or request in self._entered:
            return True
        assert self._residency is not None
        behind = self._turned_away
        if behind and self._passed >= _PATIENCE:
            return False
        if self._residency.can_enter(adapter, only_resident=behind):
            return True
        if not behind:
            self._turned_away = True
            if self._first is not request:
                self._first, self._passed = request, 0
        return False

    def start(self, request: Request) -> int:
        """The slot of a request that starts now."""
        adapter = request.adapter
        if adapter is None:
            return 0
        if request not in self._entered:
            assert self._residency is not None
            self._residency.enter(adapter)
            self._entered.add(request)
            if self._turned_away:
                self._passed += 1
        return adapter.slot

    def end(self, request: Request) -> None:
        """A request is over, started or not."""
        if request is self._first:
            self._first = None
        if request in self._entered:
            self._entered.remove(request)
            assert request.adapter is not None and self._residency is not None
            self._residency.exit(request.adapter)
