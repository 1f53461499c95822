"""Evaluations that a server runs of itself: what is asked, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from ift_serve.client.options import EvaluationOptions
from ift_serve.client.texts import utf8
from ift_serve.v1 import evaluation_pb2 as pb


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """How far one model is in one task. ``passed``: None where nothing is judged yet."""

    model: str
    task: str
    planned: int
    done: int
    failed: int
    passed: int | None


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """How far a run is. ``seconds``: since it began; ``seconds_left``: None before anything is done."""

    total: int
    done: int
    seconds: float
    seconds_left: float | None
    tasks: tuple[TaskProgress, ...]


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """What came out: the report as `ift-serve eval` writes it."""

    found: dict[str, Any]


def run_message(tasks: Mapping[str, str] | Sequence[str], options: EvaluationOptions) -> pb.RunRequest:
    """``tasks``: names, or the content of each one's file by its name. Raises TypeError and ValueError."""
    contents = tasks if isinstance(tasks, Mapping) else dict.fromkeys(tasks, "")
    plain: dict[str, Any] = {"repeats": 1, "include_rows": True, **options}
    decoding = plain.pop("decoding", None)
    adapters = [utf8("adapters", adapter) for adapter in plain.pop("adapters", ())]
    unknown = sorted(set(plain) - EvaluationOptions.__annotations__.keys())
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}; there are {', '.join(EvaluationOptions.__annotations__)}")
    request = pb.RunRequest(adapters=adapters, **plain)
    for name, content in contents.items():
        request.tasks.add(name=utf8("tasks", name), data=utf8(f"tasks.{name}", content))
    try:
        json_format.ParseDict(dict(decoding or {}), request.decoding)
    except json_format.ParseError as error:
        raise ValueError(f"decoding: is not what JSON can carry: {error}") from None
    return request


class ReportPieces:
    """Puts the pieces of a report together."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def add(self, message: pb.RunResponse) -> EvaluationProgress | EvaluationReport | None:
        """What a message tells; None for a piece that is not the last."""
        if message.WhichOneof("event") == "progress":
            return _progress(message.progress)
        self._pieces.append(message.report.json)
        if not message.report.is_last:
            return None
        return EvaluationReport(json.loads(b"".join(self._pieces)))


def _progress(message: pb.RunProgress) -> EvaluationProgress:
    tasks = tuple(
        TaskProgress(t.model, t.task, t.planned, t.done, t.failed, t.passed if t.HasField("passed") else None)
        for t in message.tasks
    )
    left = message.seconds_left if message.HasField("seconds_left") else None
    return EvaluationProgress(message.total, message.done, message.seconds, left, tasks)
