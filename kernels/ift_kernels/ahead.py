"""Compiles the CPU's kernels ahead of their first use, in processes beside this one.

The processes are forks, so that none of them imports torch and numba again; they compile, write to the directory of
``cpu_simd.storage`` and end. What another process is compiling is waited for, not compiled twice.
"""

# The modules of kernels import numba, so they are imported where they are needed.

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import inspect
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ift_kernels.cpu_simd.openmp import Worker

_PACKAGE = Path(__file__).parent
_PR_SET_PDEATHSIG = 1
_IDLE = 19


def workers(dtypes: Sequence[str] | None = None, first: Sequence[str] = ()) -> list[list[Worker]]:
    """Every worker that this processor can run, by operation and dtype: those of one share what they call.

    dtypes: such as ``float32``; None: all. first: operations that come before others. Among equals the longest sources
    come first, since they take longest to compile.
    """
    from ift_kernels.cpu_simd.openmp import Worker

    names = [*(f"{path.parent.name}.cpu" for path in _PACKAGE.glob("*/cpu.py")), "cpu_simd.recorded"]
    modules = [importlib.import_module(f"{__package__}.{name}") for name in names]
    modules.sort(key=lambda module: (module.__name__.split(".")[1] not in first, -len(inspect.getsource(module))))
    groups: list[list[Worker]] = []
    for module in modules:
        found = [value for value in vars(module).values() if isinstance(value, Worker) and value.is_available()]
        for dtype in dict.fromkeys(str(worker.dtype).removeprefix("torch.") for worker in found):
            if dtypes is None or dtype in dtypes:
                groups.append([worker for worker in found if str(worker.dtype) == f"torch.{dtype}"])
    return groups


def is_compiled(dtypes: Sequence[str]) -> bool:
    """Whether the workers of these dtypes are all kept for this processor and these sources."""
    from ift_kernels.cpu_simd.storage import is_complete, kept_code

    return is_complete(kept_code(), tuple(dtypes))


class Compilation:
    """Processes that compile groups of workers, and end with the thread that made them.

    Made while this process computes nothing yet: a fork has its memory, and none of its other threads.
    """

    def __init__(self, groups: Sequence[Sequence[Worker]], processes: int) -> None:
        self.groups = list(groups)
        self._wanted, tell = os.pipe()
        os.write(tell, bytes(range(len(self.groups))))
        os.close(tell)
        self._done, done = os.pipe()
        parent = os.getpid()
        self._pids = [self._forked(parent, done) for _ in range(min(processes, len(self.groups)))]
        os.close(done)
        os.close(self._wanted)

    def _forked(self, parent: int, done: int) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            gc.disable()  # a seventh of the time; the process ends with what it has made
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _end_with(parent)
            self._compile(done)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _compile(self, done: int) -> None:
        from ift_kernels.cpu_simd.openmp import compiled

        while number := os.read(self._wanted, 1):
            for worker in self.groups[number[0]]:
                compiled(worker)
            os.write(done, number)

    def finish(self, dtypes: Sequence[str], tell: Callable[[int], None] = lambda count: None) -> bool:
        """Wait for all of them, and note that the workers of ``dtypes`` are kept. False where one is not.

        ``tell`` is told of each group when it is compiled, how many workers that were.
        """
        from ift_kernels.cpu_simd.storage import kept_code, mark_complete

        done = 0
        while number := os.read(self._done, 1):
            done += 1
            tell(len(self.groups[number[0]]))
        os.close(self._done)
        while self._pids:
            os.waitpid(self._pids.pop(), 0)
        place = kept_code()
        if done < len(self.groups) or place is None:
            return False
        try:
            mark_complete(place, tuple(dtypes))
        except OSError:
            return False
        return True

    def yield_to_others(self) -> None:
        """Compile only while nobody else needs a processor."""
        for pid in list(self._pids):
            with contextlib.suppress(OSError):  # it has ended
                os.setpriority(os.PRIO_PROCESS, pid, _IDLE)


def _end_with(parent: int) -> None:
    """Have the kernel end this process with the thread that forked it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
