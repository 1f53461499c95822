"""Verdicts on texts: what is asked of the server, and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


class Verdicts(list[ConstraintVerdict]):
    """In the order of the constraints.

    ``adherence``: what the adherence head of an adapter says, 0 to 1; None where none was asked or the adapter has
    none, which ``adherence_unavailable`` then says.
    """

    def __init__(self, found: Iterable[ConstraintVerdict], adherence: float | None, adherence_unavailable: str) -> None:
        super().__init__(found)
        self.adherence = adherence
        self.adherence_unavailable = adherence_unavailable

    @property
    def passed(self) -> bool:
        """Whether every constraint is kept."""
        return all(self)


def check_message(
    response: str, constraints: Sequence[Mapping[str, Any]], prompt: str, adapter: str = ""
) -> pb.CheckRequest:
    """Constraints are objects such as ``{"type": "end", "phrase": "Over and out"}``. Raises ValueError."""
    request = pb.CheckRequest(
        prompt=utf8("prompt", prompt), response=utf8("response", response), adapter=utf8("adapter", adapter)
    )
    for index, constraint in enumerate(constraints):
        try:
            json_format.ParseDict(dict(constraint), request.constraints.add().check)
        except json_format.ParseError as error:
            raise ValueError(f"constraints[{index}]: is not what JSON can carry: {error}") from None
    return request


def verdicts(message: pb.CheckResponse) -> Verdicts:
    """What the server says."""
    found = [
        ConstraintVerdict(v.passed, v.reason, (v.span.begin, v.span.end) if v.HasField("span") else None)
        for v in message.verdicts
    ]
    adherence = message.adherence if message.HasField("adherence") else None
    return Verdicts(found, adherence, message.adherence_unavailable)
