"""What an engine process imports: transformers, without the parts of it and of torch that serving never uses.

A start mostly imports. transformers asks at import for torch's distributed tensors, for accelerate and for scipy, and
decorates functions for torch's compiler, which brings sympy; together they take as long as everything that is used.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from ift_serve.modeling.import_structure import kept_import_structure

_UNUSED = (
    "is_torch_distributed_available", "is_accelerate_available", "is_scipy_available", "is_torchao_available",
    "is_kernels_available",
)  # fmt: skip
"""transformers' own questions. What it has without these packages is all that one process on one device needs."""
_COMPILER = "torch._dynamo"
_EARLY = "_trace_wrapped_higher_order_op"
"""The module of the compiler that transformers' masks import; it needs nothing else of it."""
_MARKS = ("disable", "allow_in_graph", "assume_constant_result")
"""What functions are marked with for the compiler. Nothing that is served is compiled by it."""


class _LaterModule(ModuleType):
    """A package that is executed when something of it is first asked for, a submodule included."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        spec = self.__spec__
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert spec is not None and spec.loader is not None
        self.__path__ = list(spec.submodule_search_locations or ())
        spec.loader.exec_module(self)
        return getattr(self, name)


def _no() -> bool:
    return False


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    return (lambda inner: inner) if function is None else function


def _postpone(name: str, early: str, **known: Any) -> None:
    """Have a package executed when something but ``known`` is first asked of it, and one submodule imported now.

    A package that has been executed, or is not there, stays as it is.
    """
    parent, _, own = name.rpartition(".")
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None:
        return
    module = _LaterModule(name)
    module.__spec__, module.__loader__, module.__package__ = spec, spec.loader, name
    module.__file__ = spec.origin
    module.__path__ = list(spec.submodule_search_locations or ())
    vars(module).update(known)
    sys.modules[name] = module
    setattr(sys.modules[parent], own, module)
    with contextlib.suppress(ImportError):
        importlib.import_module(f"{name}.{early}")
    vars(module).pop("__path__", None)


def import_lean_transformers() -> None:
    """Import torch and transformers' models. For a process of its own: to all that runs in it, the rest is not there.

    Only ``torch.compile`` imports what it needs when it is called.
    """
    if "transformers.modeling_utils" in sys.modules:
        return
    import torch  # noqa: F401  (before the part of it that is postponed)

    with kept_import_structure():
        from transformers import utils

    for name in _UNUSED:
        for module in (utils, utils.import_utils):
            if hasattr(module, name):
                setattr(module, name, _no)
    _postpone(_COMPILER, _EARLY, **dict.fromkeys(_MARKS, _unmarked))
    for name in ("modeling_utils", "models.auto"):
        importlib.import_module(f"transformers.{name}")
