"""`ift-serve eval --on-server`: the server asks itself, and tells how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ift_serve.client import EvaluationProgress
    from ift_serve.evaluation.run import Progress


def run_on_server(
    target: str,
    connection: Mapping[str, Any],
    tasks: Sequence[str],
    files: Mapping[str, str],
    shown: AbstractContextManager[Callable[[Progress], None]],
    **asked: Any,
) -> dict[str, Any]:
    """The report. Files of tasks are read here and sent; ``asked``: the other arguments of ``Client.evaluate``.

    Raises ServerError, ValueError, EvaluationError.
    """
    from ift_serve.client import Client, EvaluationReport
    from ift_serve.evaluation.errors import EvaluationError

    contents = dict.fromkeys(tasks, "")
    for name, path in files.items():
        if name not in contents:
            raise ValueError(f"--data {name}={path}: {name} is not among the tasks")
        try:
            contents[name] = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluationError(f"{path}: cannot be read: {error}") from None
    with Client(target, retries=0, **connection) as client, shown as show:
        for event in client.evaluate(contents, **asked):
            if isinstance(event, EvaluationReport):
                return event.found
            show(_progress(event))
    raise EvaluationError("the server ended the evaluation without a report")


def _progress(told: EvaluationProgress) -> Progress:
    """What the server tells, as the tables have it."""
    from ift_serve.evaluation.run import Progress

    progress = Progress(told.total, told.done, time.monotonic() - told.seconds)
    for one in told.tasks:
        progress.planned[one.model, one.task] = one.planned
        progress.counts[one.model, one.task] = [one.done, one.failed, one.passed or 0]
        if one.passed is not None:
            progress.judged.add((one.model, one.task))
    return progress
