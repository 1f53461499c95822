"""EvaluationService: verdicts on texts, for applications that want to know whether an answer did what was asked."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import json_format

from ift_serve.checks import Check, parse_check
from ift_serve.checks.errors import MissingExtraError
from ift_serve.checks.verdict import Verdict, failed
from ift_serve.server.call_guard import Call
from ift_serve.server.errors import StatusError, invalid
from ift_serve.text.workers import TextWorkers
from ift_serve.v1 import evaluation_pb2 as pb

_MOST, _LARGEST = 64, 16_384
_EMPTY = failed("empty answer")


class EvaluationService:
    """Checks are linear in the response whatever it holds, and are made beside the event loop where it is long."""

    def __init__(self) -> None:
        self._workers = TextWorkers()

    async def check(self, request: pb.CheckRequest, call: Call) -> pb.CheckResponse:
        """A verdict for each constraint."""
        if not 1 <= len(request.constraints) <= _MOST:
            raise invalid("constraints", f"has {len(request.constraints)} entries; give 1 to {_MOST}")
        checks = [_check(one, f"constraints[{index}].check") for index, one in enumerate(request.constraints)]
        size = (len(request.response) + len(request.prompt)) * len(checks)
        verdicts = await self._workers.run(size, lambda: _judged(checks, request.response, request.prompt))
        response = pb.CheckResponse(passed=all(verdicts))
        for verdict in verdicts:
            message = response.verdicts.add(passed=verdict.passed, reason=verdict.reason)
            if verdict.span is not None:
                message.span.begin, message.span.end = verdict.span
        return response


def _check(constraint: pb.Constraint, path: str) -> Check:
    if constraint.ByteSize() > _LARGEST:
        raise invalid(path, f"has more than {_LARGEST} bytes")
    try:
        return parse_check(_whole(json_format.MessageToDict(constraint.check)), path)
    except ValueError as error:
        field, _, message = str(error).partition(": ")
        raise invalid(field if message else path, message or field) from None
    except RecursionError:
        raise invalid(path, "is nested too deeply") from None


def _whole(value: Any) -> Any:
    """Numbers that JSON has as floats alone, as the whole numbers that they are."""
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _judged(checks: list[Check], response: str, prompt: str) -> list[Verdict]:
    if not response.strip():
        return [_EMPTY] * len(checks)
    try:
        return [check.verdict(response, prompt) for check in checks]
    except MissingExtraError as error:
        raise StatusError(grpc.StatusCode.UNIMPLEMENTED, str(error)) from None
