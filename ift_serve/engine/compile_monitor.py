"""Watches for kernels that compile after the warm-up: each is a stall that some request pays for."""

from __future__ import annotations

import logging
from typing import Any

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
