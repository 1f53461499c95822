"""Run a numba kernel on torch's own OpenMP threads.

A second thread pool would fight torch's for the cores, and waking a sleeping one costs 30 us, more than
most decode-step operations. libgomp's entry point is called directly with the same pool torch uses; where
there is no libgomp (macOS), kernels run on the calling thread.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core.ccallback import CFunc
from numba.core.extending import intrinsic
from numpy.typing import NDArray

from ift_kernels.cpu_simd.machine_code import keep
from ift_kernels.cpu_simd.storage import compiling

_I64 = ir.IntType(64)
_I8P = ir.IntType(8).as_pointer()


@functools.cache
def _libgomp() -> ctypes.CDLL | None:
    # Wheels carry it under its own name or with a hash in it, beside torch's libraries or in a folder of its own.
    package = Path(torch.__file__).parent
    folders = (package / "lib", package.parent / "torch.libs")
    found = [path for folder in folders for path in sorted(folder.glob("libgomp*.so*"))]
    return ctypes.CDLL(str(found[0])) if found else None


@functools.cache
def entry_point() -> int:
    """Address of ``GOMP_parallel``; 0 where torch does not bring libgomp."""
    library = _libgomp()
    if library is None:
        return 0
    return ctypes.cast(library.GOMP_parallel, ctypes.c_void_p).value or 0


@functools.cache
def barrier() -> int:
    """Address of ``GOMP_barrier``, for :func:`wait`; 0 where torch does not bring libgomp."""
    library = _libgomp()
    if library is None:
        return 0
    return ctypes.cast(library.GOMP_barrier, ctypes.c_void_p).value or 0


_OPTIONS = {"error_model": "numpy"}
"""A division by 0 gives inf or nan, in what a worker calls too. numba's default raises: in a thread that would wait for
the interpreter's lock, which the one that waits for this thread holds."""


def _everywhere() -> bool:
    return True


@dataclass(frozen=True, eq=False, slots=True)
class Worker:
    """A function that torch's threads run. It is compiled when it is first needed, or ahead of that (see ``ahead``)."""

    function: Callable[[Any], None]
    dtype: torch.dtype
    is_available: Callable[[], bool]
    """Whether this processor has the instructions that it is written in."""

    @property
    def name(self) -> str:
        """Its operation and its own, such as ``silu_and_mul.worker_fp32``."""
        return f"{self.function.__module__.split('.')[1]}.{self.function.__name__.lstrip('_')}"


def worker(
    dtype: torch.dtype, is_available: Callable[[], bool] = _everywhere
) -> Callable[[Callable[[Any], None]], Worker]:
    """Decorates a worker: a function of a kernel's ``cpu.py`` that takes the address of its arguments.

    dtype: what it computes in; a process needs the workers of one or two.
    """
    return lambda function: Worker(function, dtype, is_available)


@functools.cache
def _compile(worker: Worker) -> Any:
    found = CFunc(worker.function, ((types.voidptr,), types.void), locals={}, options=_OPTIONS)
    keep(found, worker.function)
    with compiling(worker.name):
        found.compile()
    return found


def compiled(worker: Worker) -> int:
    """Address of a worker, compiled when it is first needed: a process computes in one dtype, not in all."""
    return int(_compile(worker).address)


@intrinsic
def call_worker(typing, worker, data):
    """Call a worker, by its address, with the address of its arguments."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [_I8P])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [builder.inttoptr(args[1], _I8P)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def _call_gomp(typing, gomp, worker, data, threads):
    def codegen(context, builder, signature, args):
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [_I8P, _I8P, i32, i32])
        builder.call(
            builder.inttoptr(args[0], kind.as_pointer()),
            [
                builder.inttoptr(args[1], _I8P),
                builder.inttoptr(args[2], _I8P),
                builder.trunc(args[3], i32),
                ir.Constant(i32, 0),
            ],
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def _call(typing, function):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@njit(inline="always")
def wait(barrier):
    """Until every thread of the region is here, by the address that :func:`barrier` gives."""
    if barrier != 0:
        _call(barrier)


@intrinsic
def take(typing, address):
    """Atomically fetch the int64 at ``address`` and add one: the next work item."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, ir.Constant(_I64, 1), "monotonic")

    return types.int64(types.int64), codegen


@intrinsic
def address_of(typing, data):
    """The integer value of a C pointer."""

    def codegen(context, builder, signature, args):
        return builder.ptrtoint(args[0], _I64)

    return types.int64(types.voidptr), codegen


def _start(gomp, worker, arguments, threads, values):
    for place in range(len(values)):
        arguments[place] = values[place]
    data = np.int64(arguments.ctypes.data)
    if gomp == 0 or threads <= 1:
        call_worker(worker, data)
    else:
        _call_gomp(gomp, worker, data, threads)


def _run(gomp, worker, arguments, threads):
    data = np.int64(arguments.ctypes.data)
    if gomp == 0 or threads <= 1:
        call_worker(worker, data)
    else:
        _call_gomp(gomp, worker, data, threads)


def _launcher(function: Callable[..., None], *more: tuple[Any, ...]) -> Any:
    """A function that launches a worker, compiled for its signatures and for no other."""
    found = njit(function)
    keep(found, function)
    with compiling(function.__name__):
        for rest in more:
            found.compile((types.int64, types.int64, types.int64[::1], types.int64, *rest))
    found.disable_compile()
    return found


VALUES = (5, 6, 7)
"""How many values ``start`` may be given; a kernel that has another number adds it here."""

_launch = _launcher(_run, ())
_fill_and_launch = _launcher(_start, *((types.UniTuple(types.int64, count),) for count in VALUES))

_Note = Callable[[int, NDArray[np.int64], int], None]
_note: _Note | None = None


@contextlib.contextmanager
def recording(note: _Note) -> Iterator[None]:
    """A context in which ``note(worker, arguments, threads)`` is told of every launch before it runs, on any thread."""
    global _note
    before, _note = _note, note
    try:
        yield
    finally:
        _note = before


def run(gomp: int, worker: int, arguments: NDArray[np.int64], threads: int) -> None:
    """Run ``worker(arguments.address)`` on ``threads`` threads; they share the work through ``take``.

    gomp: the address that ``entry_point`` gives.
    """
    if _note is not None:
        _note(worker, arguments, threads)
    _launch(gomp, worker, arguments, threads)


def start(gomp: int, worker: int, arguments: NDArray[np.int64], threads: int, values: tuple[int, ...]) -> None:
    """The same as ``run``, after ``values`` were written over the first arguments: for arguments that are kept."""
    if _note is not None:
        arguments[: len(values)] = values
        _note(worker, arguments, threads)
    _fill_and_launch(gomp, worker, arguments, threads, values)
