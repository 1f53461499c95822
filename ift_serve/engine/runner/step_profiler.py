"""Traces of some steps by torch's profiler, written when an operator asks for one."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, record_function

from ift_serve.engine.protocol.progress import Progress

_log = logging.getLogger(__name__)


class StepProfiler:
    """Records whole steps from the next one on, once asked to; what lies between them is in the trace too.

    directory: where traces go, made if it is not there; None: nothing is ever recorded. steps: how many a trace has.
    Raises OSError where the directory cannot be written. A trace has operations, their shapes and times, on a GPU the
    kernels as well, and neither tokens nor texts.
    """

    def __init__(self, directory: str | None, steps: int, *, gpu: bool) -> None:
        self._directory = None if directory is None else Path(directory)
        self._steps = steps
        self._activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
        self._left = 0
        self._profile: profile | None = None
        self._numbers = itertools.count()
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True)
            if not os.access(self._directory, os.W_OK | os.X_OK):
                raise PermissionError(f"profile: {self._directory} cannot be written")

    def ask(self) -> None:
        """Record the next steps; while some are being recorded, nothing changes."""
        if self._directory is None:
            _log.warning("no trace is written: the engine has no directory for traces (--profile)")
        elif not self._left:
            self._left = self._steps

    @contextlib.contextmanager
    def step(self, progress: Progress) -> Iterator[None]:
        """One step runs in the block; the last one of a trace is followed by writing it."""
        if not self._left:
            yield
            return
        if self._profile is None:
            self._profile = profile(activities=self._activities, record_shapes=True)
            self._profile.start()
        try:
            with record_function("step"):
                yield
        finally:
            self._left -= 1
            if not self._left:
                # As with compilations, the time that this takes says nothing of the steps.
                with progress.compiling():
                    self._write()

    def _write(self) -> None:
        assert self._profile is not None and self._directory is not None
        recorded, self._profile = self._profile, None
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = self._directory / f"steps-{stamp}-{os.getpid()}-{next(self._numbers)}.json.gz"
        unfinished = path.with_name(f".{path.name}")
        try:
            recorded.stop()
            recorded.export_chrome_trace(str(unfinished))
            unfinished.replace(path)
        except (OSError, RuntimeError) as error:
            unfinished.unlink(missing_ok=True)
            _log.error("the trace %s could not be written: %s", path, error)
        else:
            _log.info("trace written", extra={"path": str(path), "steps": self._steps})
