"""An evaluation that a server runs of itself: the plan out of a message, progress while it goes on, the report."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from ift_serve.client import AsyncClient
from ift_serve.client.errors import FieldViolation, InvalidRequestError
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.reporting.document import document
from ift_serve.evaluation.run import BASE, Plan, Progress, evaluate
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.event_loop import EventLoopThread
from ift_serve.evaluation.serving.result_store import ResultStore
from ift_serve.evaluation.tasks.registry import build_task
from ift_serve.evaluation.tasks.task import Task
from ift_serve.v1 import evaluation_pb2 as pb

_MOST_TASKS, _MOST_ADAPTERS, _MOST_SAMPLES, _MOST_IN_FLIGHT, _LONGEST = 8, 8, 50_000, 256, 3600.0
"""Samples are prompts times models times repeats: what is kept of each, until the report is made, is some kilobytes."""
_USUAL_TIMEOUT = 300.0
_LOOK_SECONDS = 0.5
_PIECE = 2**20
"""Bytes of a piece of the report."""


async def hosted(request: pb.RunRequest, channel: Any) -> AsyncGenerator[pb.RunResponse, None]:
    """Evaluate what ``channel`` leads to, in a loop of its own: judging and reporting hold up no other caller.

    Raises InvalidRequestError, EvaluationError, ServerError. Closing the iterator ends the evaluation.
    """
    plan = await asyncio.to_thread(plan_of, request)
    run = _Run(request, plan, channel)
    try:
        told: tuple[int, int] | None = None
        while not run.is_over:
            await run.wait(_LOOK_SECONDS)
            if run.latest is not None and (now := run.latest.done_and_failed) != told:
                told = now
                yield pb.RunResponse(progress=run.latest.message())
        report = run.report()
        for start in range(0, len(report), _PIECE):
            piece = pb.RunReport(json=report[start : start + _PIECE], is_last=start + _PIECE >= len(report))
            yield pb.RunResponse(report=piece)
    finally:
        await run.close()


def plan_of(request: pb.RunRequest) -> Plan:
    """What is to be evaluated. Raises InvalidRequestError, whose violations name the field; EvaluationError."""
    _bounded("tasks", len(request.tasks), 1, _MOST_TASKS)
    _bounded("adapters", len(request.adapters), 0, _MOST_ADAPTERS)
    _bounded("concurrency", request.concurrency, 0, _MOST_IN_FLIGHT)
    if not 0 <= request.request_timeout <= _LONGEST:
        raise _wrong("request_timeout", f"{request.request_timeout:g} is not between 0 and {_LONGEST:g} seconds")
    names = [task.name for task in request.tasks]
    if len(set(names)) < len(names):
        raise _wrong("tasks", "names a task twice")
    try:
        settings = DecodingSettings.read({"temperature": 0.0} | _whole(json_format.MessageToDict(request.decoding)))
    except (ValueError, TypeError) as error:
        raise _wrong("decoding", str(error)) from None
    if settings.adapter:
        raise _wrong("decoding", "adapter: name adapters in the field of that name")
    tasks = [_task(task, f"tasks[{index}]") for index, task in enumerate(request.tasks)]
    limit, repeats = request.limit or None, request.repeats or 1
    models = list(dict.fromkeys(request.adapters)) or [BASE]
    samples = sum(min(limit or len(task.items()), len(task.items())) for task in tasks) * repeats * len(models)
    if samples > _MOST_SAMPLES:
        raise _wrong("limit", f"{samples} samples are too many for one run; {_MOST_SAMPLES} at most")
    return Plan(tasks, models, settings, repeats, request.seed, limit)


def _task(task: pb.EvaluationTask, path: str) -> Task:
    """Built from the content of its file, which no task looks at again."""
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, Path] = {}
        if task.data:
            files[task.name] = Path(folder) / "data.jsonl"
            files[task.name].write_text(task.data, encoding="utf-8")
        try:
            return build_task(task.name, files)
        except EvaluationError as error:
            # The message is about a file that the caller has never seen.
            said = str(error).replace(f"{files.get(task.name)}", "line").replace(f"--data {task.name}=FILE", "data")
            raise _wrong(path, said) from None


class _Run:
    """An evaluation in a thread of its own."""

    def __init__(self, request: pb.RunRequest, plan: Plan, channel: Any) -> None:
        self._request, self._plan = request, plan
        self._thread = EventLoopThread()
        self.latest: _Progress | None = None
        self._report = asyncio.wrap_future(self._thread.start(self._evaluated(channel)))

    @property
    def is_over(self) -> bool:
        return self._report.done()

    async def wait(self, seconds: float) -> None:
        """Until it is over, so long at most."""
        await asyncio.wait([self._report], timeout=seconds)

    def report(self) -> bytes:
        """The report; raises what ended the evaluation."""
        return self._report.result()

    async def close(self) -> None:
        """End it: what it asked is cancelled first."""
        self._report.cancel()
        await asyncio.to_thread(self._thread.close)

    async def _evaluated(self, channel: Any) -> bytes:
        async with AsyncClient(channel=channel, retries=0) as client:
            with ResultStore() as store:
                result = await evaluate(
                    client,
                    self._plan,
                    store,
                    concurrency=self._request.concurrency or None,
                    timeout=self._request.request_timeout or _USUAL_TIMEOUT,
                    shown=self._show,
                )
        found = document(result, self._plan)
        if not self._request.include_rows:
            del found["rows"]
        return json.dumps(found, ensure_ascii=False, allow_nan=False).encode(errors="replace")

    def _show(self, progress: Progress) -> None:
        self.latest = _Progress(progress)


class _Progress:
    """A view of a run's progress that another thread may read: the counts are copied when it is made."""

    def __init__(self, progress: Progress) -> None:
        self._total, self._done = progress.total, progress.done
        self._seconds = time.monotonic() - progress.started
        self._left = progress.seconds_left
        self._counts = [
            (model, task, planned, tuple(progress.counts[model, task]), (model, task) in progress.judged)
            for (model, task), planned in progress.planned.items()
        ]

    @property
    def done_and_failed(self) -> tuple[int, int]:
        """What changes with every sample."""
        return self._done, sum(counts[1] for _, _, _, counts, _ in self._counts)

    def message(self) -> pb.RunProgress:
        """For the wire."""
        left = None if self._left == float("inf") else self._left
        message = pb.RunProgress(total=self._total, done=self._done, seconds=self._seconds, seconds_left=left)
        for model, task, planned, (done, failed, passed), is_judged in self._counts:
            told = message.tasks.add(model=model, task=task, planned=planned, done=done, failed=failed)
            if is_judged:
                told.passed = passed
        return message


def _bounded(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise _wrong(field, f"{value} is not between {least} and {most}")


def _wrong(field: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(FieldViolation(field, message))


def _whole(value: Any) -> Any:
    """Numbers that JSON has as floats alone, as the whole numbers that they are."""
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
