"""Run a numba kernel on torch's own OpenMP threads.

A second thread pool would fight torch's for the cores, and waking a sleeping one costs 30 us, more than
most decode-step operations. libgomp's entry point is called directly with the same pool torch uses; where
there is no libgomp (macOS), kernels run on the calling thread.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core.ccallback import CFunc
from numba.core.extending import intrinsic

from ift_kernels.cpu_simd.storage import can_keep

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
def _sources() -> tuple[str, int]:
    """Stamp of the machine code kept on disk: changes with any source of this package.

    numba's own looks at the worker's file alone, not at those it calls into, and would run what an upgrade replaced.
    """
    package = Path(__file__).parents[1]
    digest = blake2b(digest_size=16)
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest(), 0


@functools.cache
def _compile(worker: Callable[[Any], None]) -> Any:
    found = CFunc(worker, ((types.voidptr,), types.void), locals={}, options={})
    if can_keep():
        found.enable_caching()
        found._cache._cache_file._source_stamp = _sources()
    found.compile()
    return found


def compiled(worker: Callable[[Any], None]) -> int:
    """Address of a worker, compiled when it is first needed: a process computes in one dtype, not in all."""
    return int(_compile(worker).address)


@intrinsic
def _call_worker(typing, worker, data):
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


@njit(cache=can_keep())
def start(gomp, worker, arguments, threads, values):
    """The same as :func:`run`, after ``values`` were written over the first arguments: for arguments that are kept."""
    for place in range(len(values)):
        arguments[place] = values[place]
    data = np.int64(arguments.ctypes.data)
    if gomp == 0 or threads <= 1:
        _call_worker(worker, data)
    else:
        _call_gomp(gomp, worker, data, threads)


@njit(cache=can_keep())
def run(gomp, worker, arguments, threads):
    """Run ``worker(arguments.address)`` on ``threads`` threads; they share the work through ``take``."""
    data = np.int64(arguments.ctypes.data)
    if gomp == 0 or threads <= 1:
        _call_worker(worker, data)
    else:
        _call_gomp(gomp, worker, data, threads)
