"""Processes that begin with torch and the trainer imported: forked from one that imports them and computes nothing."""

from __future__ import annotations

import gc
import multiprocessing
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["ift_training.training_loop", "tests.support.training"])


def run_forked(work: Callable[..., None], calls: Sequence[tuple[Any, ...]], errors: Path) -> list[int | None]:
    """Call a module's function with each of the arguments, side by side, on one thread each; their exit codes.

    When one fails, those that may wait for it are ended. ``errors``: a directory for tracebacks.
    """
    processes = [
        _CONTEXT.Process(target=_work, args=(work, arguments, errors / f"{number}.txt"))
        for number, arguments in enumerate(calls)
    ]
    for process in processes:
        process.start()
    running = list(processes)
    try:
        while running:
            ended = wait([process.sentinel for process in running])
            running = [process for process in running if process.sentinel not in ended]
            for process in processes:
                process.join(0 if process in running else None)
            if any(process.exitcode for process in processes):
                break
    finally:
        for process in running:
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def _work(work: Callable[..., None], arguments: tuple[Any, ...], errors: Path) -> None:
    import torch

    torch.set_num_threads(1)
    # What was imported is no garbage, and looking at it again and again would cost more than the work.
    gc.freeze()
    try:
        work(*arguments)
    except BaseException:
        errors.write_text(traceback.format_exc())
        raise
