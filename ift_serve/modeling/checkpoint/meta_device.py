"""Modules on torch's meta device: names and shapes without values.

torch draws first values there too, through Python code that imports sympy for it: nearly half a second in a process
that uses sympy for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ift_serve.modeling.lean_imports import execute_meta_kernels

_DRAWS = (Tensor.normal_, Tensor.uniform_)


class _NothingDrawn(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _DRAWS and args[0].is_meta:
            return args[0]
        try:
            return func(*args, **(kwargs or {}))
        except NotImplementedError:
            # An operation whose shapes only torch's Python code knows; the first one executes it.
            if not execute_meta_kernels():
                raise
            return func(*args, **(kwargs or {}))


def nothing_drawn() -> TorchFunctionMode:
    """A context in which tensors of the meta device are given no first values: they have none."""
    return _NothingDrawn()


@contextmanager
def meta_device() -> Iterator[None]:
    """What is built in this context lies on the meta device."""
    with nothing_drawn(), torch.device("meta"):
        yield
