"""Makes ``--model ift-serve`` known to lm-eval, beside its other backends.

lm-eval 0.4.13 looks at no entry points, and fills its registry of models only where that is empty: a model that is
registered first hides all others. So models are added when ``lm_eval.models`` has been imported, not before.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

MODEL, LOCATION = "ift-serve", "ift_serve.evaluation.harness.backend:IftServeLM"
GROUP = "lm_eval.models"
"""Entry points whose names and objects are models of lm-eval."""
_MODULE = "lm_eval.models"


def register() -> None:
    """Add the models of all entry points, and this one, to lm-eval's registry; again is nothing."""
    from lm_eval.api.registry import model_registry

    importlib.import_module(_MODULE)
    found = {point.name: point.value for point in importlib.metadata.entry_points(group=GROUP)}
    for name, location in ({MODEL: LOCATION} | found).items():
        if name not in model_registry:
            model_registry.register(name, target=location)


def register_on_import() -> None:
    """Register when lm-eval loads its models; costs nothing in a process that never does."""
    if _MODULE in sys.modules:
        register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds one module as Python does, and adds to what is done when it is run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Runs a module by its own loader, then registers."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._own.exec_module(module)
        register()
