"""What an engine process imports: torch, transformers and numba, without the parts that serving never uses.

A start mostly imports. transformers asks at import for torch's distributed tensors, for accelerate and for scipy, and
decorates functions for torch's compiler, which brings sympy; together they take as long as everything that is used.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from typing import Any

from ift_serve.modeling.import_structure import kept_import_structure
from ift_serve.modeling.later_modules import absent, execute, postpone, postponed

_UNUSED = (
    "is_torch_distributed_available", "is_accelerate_available", "is_scipy_available", "is_torchao_available",
    "is_kernels_available",
)  # fmt: skip
"""transformers' own questions. What it has without these packages is all that one process on one device needs."""
_META_KERNELS = "torch._meta_registrations"
_OF_TORCH = ("torch.export", _META_KERNELS)
"""What ``import torch`` executes for exporting models and, in Python, for operations on the meta device."""
_TORCH = "2.13."
"""Versions with which that was tried: there, executing it also completes ``torch.Generator``."""
_OF_NUMBA = ("scipy.linalg", "cffi", "coverage")
"""What numba imports to compile calls into BLAS and C, and to say which lines ran. No kernel makes such calls."""
_COMPILER = "torch._dynamo"
_EARLY = "_trace_wrapped_higher_order_op"
"""The module of the compiler that transformers' masks import; it needs nothing else of it."""
_MARKS = ("disable", "allow_in_graph", "assume_constant_result")
"""What functions are marked with for the compiler. Nothing that is served is compiled by it."""


def _no() -> bool:
    return False


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    return (lambda inner: inner) if function is None else function


def _import_torch() -> None:
    if "torch" in sys.modules:
        return
    # What else an execution leaves behind is known of these versions only.
    known = version("torch").startswith(_TORCH)
    with postponed(*_OF_TORCH if known else ()):
        import torch
    if known:
        from torch._opaque_base import OpaqueBaseMeta

        torch._C._set_generator_metaclass(OpaqueBaseMeta)


def import_lean_transformers() -> None:
    """Import torch and transformers' models. For a process of its own: to all that runs in it, the rest is not there.

    Only ``torch.compile`` imports what it needs when it is called.
    """
    if "transformers.modeling_utils" in sys.modules:
        return
    _import_torch()
    with kept_import_structure():
        from transformers import utils

    for name in _UNUSED:
        for module in (utils, utils.import_utils):
            if hasattr(module, name):
                setattr(module, name, _no)
    postpone(_COMPILER, _EARLY, **dict.fromkeys(_MARKS, _unmarked))
    for name in ("modeling_utils", "models.auto"):
        importlib.import_module(f"transformers.{name}")


def execute_meta_kernels() -> bool:
    """Have torch know the shapes of all its operations on the meta device. Whether it had been postponed until now."""
    module = sys.modules.get(_META_KERNELS)
    return module is not None and execute(module)


def import_lean_numba() -> None:
    """Import what numba needs to run and compile kernels that call no library."""
    with absent(*_OF_NUMBA):
        import numba.core.typing.cffi_utils
        import numba.misc.coverage_support
        import numba.np.arraymath  # noqa: F401
