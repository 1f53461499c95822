"""EvaluationService: verdicts on texts, and evaluations of the served model."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import json_format

from ift_serve.server.call_guard import Call
from ift_serve.server.check_processes import CheckProcesses
from ift_serve.server.errors import StatusError, invalid
from ift_serve.server.head_scores import HeadScorer
from ift_serve.server.hosted_evaluation import HostedEvaluation
from ift_serve.server.in_process_channel import InProcessChannel
from ift_serve.v1 import evaluation_pb2 as pb

_MOST, _LARGEST = 64, 16_384
_LONGEST_NOTE = 200


class EvaluationService:
    """Handlers by rpc name. ``services``: what a run asks, by name; ``evaluate``: None where runs are not offered."""

    def __init__(
        self,
        processes: CheckProcesses,
        heads: HeadScorer,
        services: dict[str, object],
        evaluate: HostedEvaluation | None,
        most_runs: int,
    ) -> None:
        self._processes = processes
        self._heads = heads
        self._services = services
        self._evaluate = evaluate
        self._most_runs = most_runs
        self._runs = 0

    async def check(self, request: pb.CheckRequest, call: Call) -> pb.CheckResponse:
        """A verdict for each constraint, and the adherence head's where an adapter is named."""
        if not 1 <= len(request.constraints) <= _MOST:
            raise invalid("constraints", f"has {len(request.constraints)} entries; give 1 to {_MOST}")
        constraints = [_plain(one, f"constraints[{index}].check") for index, one in enumerate(request.constraints)]
        answer = await self._processes.ask(
            {"constraints": constraints, "response": request.response, "prompt": request.prompt}
        )
        if "invalid" in answer:
            raise invalid(*answer["invalid"])
        if "missing" in answer:
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, answer["missing"])
        response = pb.CheckResponse(passed=all(passed for passed, _, _ in answer["verdicts"]))
        for passed, reason, span in answer["verdicts"]:
            message = response.verdicts.add(passed=passed, reason=reason)
            if span is not None:
                message.span.begin, message.span.end = span
        if request.adapter:
            score = await self._heads.score(request.prompt, request.response, request.adapter, call)
            if isinstance(score, str):
                response.adherence_unavailable = score
            else:
                response.adherence = score
        return response

    async def run(self, request: pb.RunRequest, call: Call) -> AsyncIterator[pb.RunResponse]:
        """Progress, then the report. What it asks is asked in the caller's name."""
        if self._evaluate is None:
            raise StatusError(
                grpc.StatusCode.UNIMPLEMENTED, "this server runs no evaluations; ask it with `ift-serve eval`"
            )
        if self._runs >= self._most_runs:
            message = f"{self._runs} evaluations are running already"
            raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_after=10.0)
        call.notes["adapter"] = ",".join(request.adapters)[:_LONGEST_NOTE]
        call.notes["tasks"] = ",".join(task.name for task in request.tasks)[:_LONGEST_NOTE]
        self._runs += 1
        try:
            channel = InProcessChannel(self._services, call.identity, call.request_id)
            async with contextlib.aclosing(self._evaluate(request, channel)) as messages:
                async for told in messages:
                    yield told
        finally:
            self._runs -= 1


def _plain(constraint: pb.Constraint, path: str) -> Any:
    if constraint.ByteSize() > _LARGEST:
        raise invalid(path, f"has more than {_LARGEST} bytes")
    try:
        return _whole(json_format.MessageToDict(constraint.check))
    except RecursionError:
        raise invalid(path, "is nested too deeply") from None
    except ValueError:  # NaN and infinity, which JSON has not
        raise invalid(path, "holds a number that is none") from None


def _whole(value: Any) -> Any:
    """Numbers that JSON has as floats alone, as the whole numbers that they are."""
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
