"""Verdicts on texts: what is asked of the server, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from ift_serve.client.texts import utf8
from ift_serve.v1 import evaluation_pb2 as pb


@dataclass(frozen=True, slots=True)
class ConstraintVerdict:
    """Whether a response keeps a constraint, and why not. A verdict is true when it does.

    ``span``: first character of the offending or satisfying place and the one after its last; None where there is none.
    """

    passed: bool
    reason: str = ""
    span: tuple[int, int] | None = None

    def __bool__(self) -> bool:
        return self.passed


def check_message(response: str, constraints: Sequence[Mapping[str, Any]], prompt: str) -> pb.CheckRequest:
    """Constraints are objects such as ``{"type": "end", "phrase": "Over and out"}``. Raises ValueError."""
    request = pb.CheckRequest(prompt=utf8("prompt", prompt), response=utf8("response", response))
    for index, constraint in enumerate(constraints):
        try:
            json_format.ParseDict(dict(constraint), request.constraints.add().check)
        except json_format.ParseError as error:
            raise ValueError(f"constraints[{index}]: is not what JSON can carry: {error}") from None
    return request


def verdicts(message: pb.CheckResponse) -> list[ConstraintVerdict]:
    """In the order of the constraints."""
    return [
        ConstraintVerdict(v.passed, v.reason, (v.span.begin, v.span.end) if v.HasField("span") else None)
        for v in message.verdicts
    ]
