"""Verdicts that cost: hostile texts and constraints for `Check`, which judges in processes of its own."""

from __future__ import annotations

from itertools import islice
from typing import Any

from attacker import Attack, Attacker, all_of
from google.protobuf import struct_pb2

from ift_serve.checks import CHECKS
from ift_serve.checks.instructions import INSTRUCTIONS
from ift_serve.v1 import evaluation_pb2 as pb
from ift_serve.v1 import evaluation_pb2_grpc

_PATIENCE = 60.0
_MEBIBYTE = 1_000_000
_HOSTILE = ("(a+)+$", "(a|aa)*b", "(.*)*x", "(a{1,30}){1,30}", "(?i)(.*a){40}")
_TEXTS = ("a", " ", "\n", "a. ", "A.B. ", '{"a":', "[1,", "\U0001f600", "- ", "river ", "Question 1. A) x\n", "***\n")


def _request(response: str, constraints: list[dict[str, Any]]) -> pb.CheckRequest:
    request = pb.CheckRequest(response=response)
    for constraint in constraints:
        check = struct_pb2.Struct()
        check.update(constraint)
        request.constraints.add(check=check)
    return request


def _checks(requests: list[pb.CheckRequest]) -> Attack:
    async def attack(attacker: Attacker) -> None:
        async with attacker.channel() as channel:
            stub = evaluation_pb2_grpc.EvaluationServiceStub(channel)
            await all_of(stub.Check(one, metadata=attacker.metadata, timeout=_PATIENCE) for one in requests)

    return attack


def _text(piece: str) -> str:
    """About a mebibyte in UTF-8, less what the rest of a message takes."""
    return piece * ((_MEBIBYTE - 60_000) // len(piece.encode()))


def _every_kind() -> list[dict[str, Any]]:
    """A constraint of every type that needs no field, and of every instruction that needs no argument."""
    plain = [
        {"type": name} for name, kind in CHECKS.items() if not any(f.is_required() for f in kind.model_fields.values())
    ]
    asked = [
        {"type": "instruction", "instruction_id": name}
        for name, kind in INSTRUCTIONS.items()
        if not any(field.is_required() for field in kind.model_fields.values())
    ]
    return [*plain, *asked]


def _groups() -> list[list[dict[str, Any]]]:
    kinds = iter(_every_kind())
    return list(iter(lambda: list(islice(kinds, 8)), []))


VERDICTS: dict[str, Attack] = {
    "Check: hostile expressions": _checks(
        [_request("a" * 300_000 + "!", [{"type": "pattern", "pattern": one}] * 16) for one in _HOSTILE] * 2
    ),
    "Check: hostile keywords": _checks(
        [
            _request(
                "a" * 300_000,
                [
                    {
                        "type": "instruction",
                        "instruction_id": "keywords:existence",
                        "kwargs": {"keywords": list(_HOSTILE)},
                    },
                    {"type": "include", "word": "a" * 8000},
                    {"type": "end", "phrase": "(" * 8000},
                ],
            )
        ]
        * 8
    ),
    "Check: a mebibyte for each kind": _checks(
        [_request(_text(_TEXTS[number % len(_TEXTS)]), some) for number, some in enumerate(_groups())]
    ),
    "Check: 64 constraints of 16 kB": _checks([_request("a", [{"type": "end", "phrase": "a" * 15_000}] * 64)] * 8),
}
