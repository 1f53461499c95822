"""Work done in threads beside the engine's steps: in order within a lane, lanes taking turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

_T = TypeVar("_T")


class Lanes:
    """Threads for many lanes. A task waits for those before it in its lane, and for at most one of every other lane a
    thread: one lane's much work, or a few slow tasks, delay others by no more than one task of theirs."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def open(self) -> Lane:
        """A lane of its own."""
        return Lane(self._pool)


class Lane:
    """Tasks that run one after the other, in the order in which they were submitted."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._lock = Lock()
        self._tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._is_running = False

    @property
    def is_idle(self) -> bool:
        """Whether everything that was submitted is done."""
        return not self._is_running

    def submit(self, work: Callable[..., _T], *arguments: Any) -> Future[_T]:
        """Have ``work`` done after what was submitted before."""
        future: Future[_T] = Future()
        with self._lock:
            self._tasks.append((future, lambda: work(*arguments)))
            if self._is_running:
                return future
            self._is_running = True
        self._pool.submit(self._run_one)
        return future

    def _run_one(self) -> None:
        """The next task; then the lane goes to the end of the queue for a thread."""
        with self._lock:
            future, work = self._tasks.popleft()
        found: Any = None
        failed: BaseException | None = None
        try:
            found = work()
        except BaseException as error:
            failed = error
        with self._lock:
            has_more = self._is_running = bool(self._tasks)
        if has_more:
            self._pool.submit(self._run_one)
        if failed is None:
            future.set_result(found)
        else:
            future.set_exception(failed)
