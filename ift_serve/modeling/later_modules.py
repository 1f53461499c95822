"""Modules that are executed when something of them is first asked for."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class LaterModule(ModuleType):
    """A module that is executed when something of it is first asked for, a submodule included."""

    def __getattr__(self, name: str) -> Any:
        # The import system asks for such names whatever a module is used for.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        execute(self)
        return getattr(self, name)


_waiting: list[LaterModule] = []
"""In the order in which they would have been executed: packages with circular imports work in no other."""


def execute(module: ModuleType) -> bool:
    """Whether the module had not been executed before. Those that were postponed before it are executed before it."""
    if not isinstance(module, LaterModule):
        return False
    while isinstance(module, LaterModule):
        _execute(_waiting.pop(0))
    return True


def _execute(module: ModuleType) -> None:
    spec = module.__spec__
    module.__class__ = ModuleType
    assert spec is not None and spec.loader is not None
    if spec.submodule_search_locations is not None:
        module.__path__ = list(spec.submodule_search_locations)
    spec.loader.exec_module(module)


def postpone(name: str, early: str, **known: Any) -> None:
    """Have a package executed when something but ``known`` is first asked of it, and one submodule imported now.

    A package that has been executed, or is not there, stays as it is.
    """
    parent, _, own = name.rpartition(".")
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None:
        return
    module = LaterModule(name)
    module.__spec__, module.__loader__, module.__package__ = spec, spec.loader, name
    module.__file__ = spec.origin
    module.__path__ = list(spec.submodule_search_locations or ())
    vars(module).update(known)
    sys.modules[name] = module
    setattr(sys.modules[parent], own, module)
    with contextlib.suppress(ImportError):
        importlib.import_module(f"{name}.{early}")
    vars(module).pop("__path__", None)
    _waiting.append(module)


class _Postponing(Loader):
    """Leaves a module to be executed later by its own loader."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._own
        vars(module).pop("__path__", None)
        module.__class__ = LaterModule
        assert isinstance(module, LaterModule)
        _waiting.append(module)


class _Finder(MetaPathFinder):
    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in self._names else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Postponing(spec.loader)
        return spec


@contextmanager
def postponed(*names: str) -> Iterator[None]:
    """Modules that are first imported in this context are executed when something of them is asked for."""
    finder = _Finder(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """In this context packages that have not been imported cannot be: who can do without them does."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
