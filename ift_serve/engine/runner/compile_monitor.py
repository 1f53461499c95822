"""Watches kernels being compiled: what is in progress counts as such, and after the warm-up each is a stall that some
request pays for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ift_serve.engine.protocol.progress import Progress

_log = logging.getLogger(__name__)


class CompileMonitor:
    """Logs every Triton compilation from ``start`` on as a defect, and counts them."""

    def __init__(self) -> None:
        self.late = 0

    def start(self) -> None:
        """The warm-up is over."""
        from triton import knobs

        before = knobs.compilation.listener

        def listen(**event: Any) -> None:
            self._note(**event)
            if before is not None:
                before(**event)

        knobs.compilation.listener = listen

    def _note(self, *, src: Any, cache_hit: bool, **_: Any) -> None:
        self.late += 1
        how = "loaded from the disk cache" if cache_hit else "compiled"
        _log.warning("defect: kernel %s was %s after the warm-up; the step that needed it waited", src.name, how)


def report_compilations(progress: Callable[[], Progress], *, triton: bool = False) -> None:
    """Have every compilation by numba in this process noted, from its beginning to its end; by Triton too if asked."""
    from numba.core import event

    class Listener(event.Listener):  # type: ignore[misc]
        """Numba holds its compiler's lock from the first pass to the loading of the machine code."""

        def on_start(self, event: Any) -> None:
            progress().compilation_begins()

        def on_end(self, event: Any) -> None:
            progress().compilation_ends()

    event.register("numba:compiler_lock", Listener())
    if not triton:  # importing it takes a third of a second
        return
    from triton import knobs

    def begins(**_: Any) -> None:
        progress().compilation_begins()

    def ends(**_: Any) -> None:
        progress().compilation_ends()

    knobs.runtime.jit_cache_hook = begins
    knobs.runtime.jit_post_compile_hook = ends
