"""Runs unchanged launchers on a machine without a GPU: every launch compiles for a target and starts nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from ift_kernels.device import DeviceProperties, assume

_MULTIPROCESSORS = {80: 108, 90: 132, 100: 148}


class _CompileOnlyDriver:
    """As much of a Triton driver as compilation asks for."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, kind: str) -> str:
        return kind


@dataclass(slots=True)
class Compilation:
    """One specialisation of a kernel, in the order of first use."""

    name: str
    kernel: Any


@contextmanager
def compile_only(capability: int) -> Iterator[list[Compilation]]:
    """Compile for ``sm_<capability>`` inside the block; yields the list of what was compiled.

    TRITON_INTERPRET must not have been set when the kernels were imported. Not for use beside real launches.
    """
    compiled: list[Compilation] = []
    seen: set[int] = set()
    changed: dict[int, tuple[Any, dict[Any, Any]]] = {}
    run: Callable[..., Any] = JITFunction.run
    before, listener = driver._active, knobs.compilation.listener

    def record(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        if id(self) not in changed:
            changed[id(self)] = (self, dict(self.device_caches))
            self.device_caches.clear()
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        if id(kernel) not in seen:
            seen.add(id(kernel))
            compiled.append(Compilation(self.fn.__name__, kernel))
        return kernel

    driver.set_active(_CompileOnlyDriver(capability))
    JITFunction.run = record
    try:
        with assume(DeviceProperties(_MULTIPROCESSORS.get(capability, 132), capability)):
            yield compiled
    finally:
        JITFunction.run = run
        knobs.compilation.listener = listener
        for function, caches in changed.values():
            function.device_caches.clear()
            function.device_caches.update(caches)
        driver._active = before
