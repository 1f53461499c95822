"""A computation's launches, recorded once at fixed addresses and run again by one call.

What a CUDA graph is to a GPU's kernels: in a decode step of a few rows, finding arguments in Python and waking threads
take longer than some kernels do. All launches run in one parallel region, with a barrier between those that several
threads share.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ift_kernels.cpu_simd import openmp
from ift_kernels.cpu_simd.simd import load_i64

_THREAD, _LAUNCHES, _COUNT, _BARRIER, _SLOTS = range(5)
_WORKER, _ARGUMENTS, _THREADS, _WAIT, _FIELDS = range(5)
_ALIGNMENT = 64

Result = TypeVar("Result")
_aten = torch.ops.aten
_ALLOCATING = frozenset(getattr(_aten, name) for name in ("empty", "empty_like", "empty_strided", "new_empty"))
_KEPT = frozenset(
    getattr(_aten, name)
    for name in (
        "view", "_unsafe_view", "_reshape_alias", "as_strided", "alias", "detach",
        "slice", "select", "narrow", "unsqueeze", "squeeze", "transpose", "t", "permute", "expand",
    )
)  # fmt: skip
"""Operations whose results are parts of other tensors."""
_CONSTANT = frozenset((_aten.arange,))
_KEPT_IN_PLACE = frozenset((_aten.reshape, _aten.contiguous, _aten.to))
"""Operations that copy only where they must."""


class NotRecordableError(Exception):
    """A computation does something beside launching workers, which running the launches again would leave out."""


def _shares_memory(result: Tensor, source: Tensor) -> bool:
    return result.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()


class _Block(np.ndarray[Any, Any]):
    """Memory of one tensor. A class of its own, since numpy's arrays tell nobody when they are freed."""


class Arena:
    """Memory for recorded computations of which one runs at a time: what one has freed, it and others use again."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[NDArray[np.uint8]]] = defaultdict(list)
        self._blocks: dict[int, NDArray[np.uint8]] = {}

    @property
    def nbytes(self) -> int:
        """Of all its blocks."""
        return sum(block.nbytes for block in self._blocks.values())

    def tensor(self, like: Tensor) -> Tensor:
        """A tensor of the same shape, strides and dtype, whose memory comes back when nobody holds it."""
        size = like.untyped_storage().nbytes()
        kind = 1 << max(size - 1, _ALIGNMENT - 1).bit_length()
        free = self._free[kind]
        if free:
            whole = free.pop()
        else:
            memory = np.empty(kind + _ALIGNMENT, dtype=np.uint8)
            first = -memory.ctypes.data % _ALIGNMENT
            whole = memory[first : first + kind]
            self._blocks[whole.ctypes.data] = whole
        block = whole.view(_Block)
        weakref.finalize(block, free.append, whole)
        return _shaped(block, like)

    def borrowed(self, tensor: Tensor) -> Tensor:
        """A tensor of :meth:`tensor` without a hold on its memory, which the next computation may write over."""
        return _shaped(self._blocks[tensor.untyped_storage().data_ptr()], tensor)


def _shaped(memory: NDArray[np.uint8], like: Tensor) -> Tensor:
    size = like.numel() * like.itemsize
    whole: Tensor = torch.from_numpy(memory)
    return whole[:size].view(like.dtype).as_strided(like.size(), like.stride())


class _Recorder(TorchDispatchMode):
    """Notes the launches of one thread, and gives its tensors memory that stays."""

    def __init__(self, arena: Arena) -> None:
        super().__init__()
        self.arena = arena
        self.launches: list[tuple[int, NDArray[np.int64], int]] = []
        self.kept: list[Any] = []
        self._thread = threading.get_ident()

    def launch(self, worker: int, arguments: NDArray[np.int64], threads: int) -> None:
        """One launch, with a copy of its arguments before any worker has counted in them."""
        if threading.get_ident() == self._thread:
            self.launches.append((worker, arguments.copy(), threads))

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in _ALLOCATING:
            return self.arena.tensor(result)
        if packet not in _KEPT | _CONSTANT and not (packet in _KEPT_IN_PLACE and _shares_memory(result, args[0])):
            raise NotRecordableError(f"{func} is not one of this package's CPU kernels")
        if packet in _CONSTANT:
            self.kept.append(result)
        return result


@openmp.worker(torch.float32)
def _run_all(data):
    args = openmp.address_of(data)
    thread = openmp.take(args + 8 * _THREAD)
    entry, barrier = load_i64(args, _LAUNCHES), load_i64(args, _BARRIER)
    for _ in range(load_i64(args, _COUNT)):
        if thread < load_i64(entry, _THREADS):
            openmp.call_worker(load_i64(entry, _WORKER), load_i64(entry, _ARGUMENTS))
        if load_i64(entry, _WAIT) != 0:
            openmp.wait(barrier)
        entry += 8 * _FIELDS


class RecordedLaunches:
    """Runs again what :func:`record` recorded, over whatever its memory holds by then."""

    def __init__(self, recorder: _Recorder) -> None:
        launches = recorder.launches
        self._kept = recorder.kept, recorder.arena
        bounds = np.cumsum([0, *(len(arguments) for _, arguments, _ in launches)])
        self._fresh = np.concatenate([arguments for _, arguments, _ in launches])
        self._used = np.empty_like(self._fresh)
        self._table = np.zeros((len(launches), _FIELDS), dtype=np.int64)
        threads = [count for _, _, count in launches]
        for row, (worker, _, count), first, following in zip(
            self._table, launches, bounds, [*threads[1:], 1], strict=False
        ):
            row[_WORKER], row[_ARGUMENTS], row[_THREADS] = worker, self._used.ctypes.data + 8 * int(first), count
            row[_WAIT] = max(count, following) > 1
        self._table[-1, _WAIT] = 0  # the region ends with a barrier of its own
        self._threads = max(threads)
        self._arguments = np.zeros(_SLOTS, dtype=np.int64)
        self._arguments[_LAUNCHES:] = self._table.ctypes.data, len(launches), openmp.barrier()

    def __len__(self) -> int:
        return len(self._table)

    def __call__(self) -> None:
        np.copyto(self._used, self._fresh)
        self._arguments[_THREAD] = 0
        openmp.run(openmp.entry_point(), openmp.compiled(_run_all), self._arguments, self._threads)


def record(compute: Callable[[], Result], arena: Arena) -> tuple[Result, RecordedLaunches]:
    """Compute once, in memory of ``arena``, and record every launch; run again, they write over the first result.

    What ``compute`` reads must stay where it is for as long as the launches are used. Raises NotRecordableError where
    it does more than launch workers, allocate, and take parts of tensors.
    """
    recorder = _Recorder(arena)
    with recorder, openmp.recording(recorder.launch):
        result = compute()
    if not recorder.launches:
        raise NotRecordableError("it launches nothing")
    return result, RecordedLaunches(recorder)
