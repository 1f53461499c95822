"""Answers that cost: forms that are slow to read or to follow, and strategies with many sequences over long prompts."""

from __future__ import annotations

import json
from typing import Any

from attacker import Attack, Attacker, all_of

from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc, reasoning_pb2

_PATIENCE = 60.0
_LONG_PROMPT = "Add 3 and 4, then say why. " * 40


def _generate(requests: list[pb.GenerateRequest]) -> Attack:
    async def attack(attacker: Attacker) -> None:
        async with attacker.channel() as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            await all_of(stub.Generate(one, metadata=attacker.metadata, timeout=_PATIENCE) for one in requests)

    return attack


def _formed(output: pb.Output, count: int = 4, **more: Any) -> list[pb.GenerateRequest]:
    prompt = pb.Prompt(instruction=pb.InstructionPrompt(instruction=_LONG_PROMPT))
    request = pb.GenerateRequest(
        prompt=prompt, sampling=pb.Sampling(temperature=1, max_new_tokens=64), output=output, **more
    )
    return [request] * count


def _schema(schema: dict[str, Any]) -> pb.Output:
    return pb.Output(json_schema=json.dumps(schema))


_ANSWER = _schema({"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]})
_VOTE = reasoning_pb2.Reasoning(
    vote=reasoning_pb2.Vote(
        samples=32,
        stop=reasoning_pb2.VOTE_STOP_ALL,
        span=reasoning_pb2.AnswerSpan(kind=reasoning_pb2.ANSWER_KIND_PATTERN, pattern="[0-9]+"),
    )
)
_BRANCH = reasoning_pb2.Reasoning(
    branch=reasoning_pb2.Branch(
        width=20, span=reasoning_pb2.AnswerSpan(kind=reasoning_pb2.ANSWER_KIND_CONTINUATION, continuation_tokens=64)
    )
)
_TRACE = reasoning_pb2.Reasoning(
    trace=reasoning_pb2.Trace(
        budget=200, early_exit=reasoning_pb2.EarlyExit(confidence=reasoning_pb2.ConfidenceExit(threshold=1.0))
    )
)
_BEST = reasoning_pb2.Reasoning(best_of=reasoning_pb2.BestOf(samples=32))


def _reasoned(reasoning: reasoning_pb2.Reasoning, count: int, temperature: float = 1.0) -> list[pb.GenerateRequest]:
    prompt = pb.Prompt(instruction=pb.InstructionPrompt(instruction=_LONG_PROMPT))
    sampling = pb.Sampling(temperature=temperature, max_new_tokens=100)
    return [pb.GenerateRequest(prompt=prompt, sampling=sampling, reasoning=reasoning)] * count


REASONING: dict[str, Attack] = {
    "a schema of 60 kB": _generate(_formed(_schema({"enum": [f"value {n} of many" for n in range(2600)]}))),
    "1,200 optional properties": _generate(
        _formed(_schema({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(1200)}}))
    ),
    "a schema that takes for ever to read": _generate(
        [one for n in range(8) for one in _formed(_schema({"type": "integer", "multipleOf": 10_000_019 + n}), 1)]
    ),
    "all of 50 patterns": _generate(
        _formed(_schema({"allOf": [{"type": "string", "pattern": f"a.{{{n}}}b"} for n in range(60, 110)]}), 8)
    ),
    "deep expressions": _generate(
        [
            *_formed(pb.Output(regex="(.*a){60}")),
            *_formed(pb.Output(regex="((a{0,99}){0,99}){0,99}")),
            *_formed(pb.Output(regex=".{0,500}a.{0,500}b.{0,500}c.{0,500}")),
        ]
    ),
    "ambiguous grammars": _generate(
        [
            *_formed(pb.Output(grammar='start: a\na: a a a | a a | "x" | "y" |\n')),
            *_formed(pb.Output(grammar="start: T\nT: /(.*a){40}.{200}/\n")),
            *_formed(
                pb.Output(grammar="start: (A|B|C)*\n" + "".join(f"{c}: /(.|\\n)*{c.lower()}.{{100}}/\n" for c in "ABC"))
            ),
        ]
    ),
    "votes of 32 over long prompts": _generate(_reasoned(_VOTE, 4)),
    "votes of 32 with a form": _generate(_formed(_ANSWER, 4, reasoning=_VOTE)),
    "branches of 20 with continuations": _generate(_reasoned(_BRANCH, 4, temperature=0.0)),
    "thoughts with trials at each paragraph": _generate(_reasoned(_TRACE, 16)),
    "the best of 32": _generate(_reasoned(_BEST, 4)),
}
