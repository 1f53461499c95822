"""A gRPC server whose answers a test writes: real messages over a real socket, no model."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from ift_serve.evaluation.serving.event_loop import EventLoopThread
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc, model_pb2, model_pb2_grpc

Script = Callable[[str, pb.GenerateRequest], str]
"""The answer to a prompt: its raw text, or instruction and context, or its messages, one after the other."""


class ScriptedServer:
    """``calls``: how often each prompt was asked; ``most``: requests that were in flight at once."""

    def __init__(self, script: Script, seconds: float = 0.0, fingerprint: str = "f") -> None:
        self._script = script
        self._seconds = seconds
        self._fingerprint = fingerprint
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.seeds: list[int] = []
        self.in_flight = self.most = 0
        self.address = ""

    async def GetModel(self, request: Any, context: Any) -> model_pb2.GetModelResponse:
        limits = model_pb2.Limits(context_length=8192, running_sequences=4)
        return model_pb2.GetModelResponse(
            name="scripted", fingerprint=self._fingerprint, limits=limits, features=["score"]
        )

    async def Score(self, request: pb.ScoreRequest, context: Any) -> pb.ScoreResponse:
        """What pins an adapter: its name comes back with a version."""
        scores = [pb.Score(log_prob=-1.0, token_count=1) for _ in request.continuations.continuations]
        return pb.ScoreResponse(scores=scores, adapter=f"{request.adapter.partition('@')[0]}@1")

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        text = prompt_text(request)
        with self._lock:
            self.calls[text] += 1
            self.seeds.append(request.sampling.seed)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(self._seconds)
            answer = self._script(text, request)
        finally:
            self.in_flight -= 1
        if answer == "<refuse>":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "prompt: is too long")
        if answer == "<gone>":
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "gone")
        cut = answer.endswith("<cut>")
        reason = pb.FINISH_REASON_LENGTH if cut else pb.FINISH_REASON_EOS
        answer = answer.removesuffix("<cut>")
        usage = pb.Usage(prompt_tokens=len(text.split()), generated_tokens=len(answer.split()))
        candidate = pb.Candidate(text=answer, finish_reason=reason)
        return pb.GenerateResponse(candidates=[candidate], usage=usage, adapter=request.adapter)


def prompt_text(request: pb.GenerateRequest) -> str:
    """What a request asks."""
    prompt = request.prompt
    if prompt.WhichOneof("kind") == "text":
        return str(prompt.text.text)
    if prompt.WhichOneof("kind") == "instruction":
        asked = prompt.instruction
        return f"{asked.instruction}\n\n{asked.context}" if asked.context else str(asked.instruction)
    return "\n".join(part.text for message in prompt.conversation.messages for part in message.parts)


@contextmanager
def scripted_server(script: Script, seconds: float = 0.0, fingerprint: str = "f") -> Iterator[ScriptedServer]:
    """A server of a script, in a thread. ``seconds``: how long each answer takes."""
    found = ScriptedServer(script, seconds, fingerprint)

    async def start() -> grpc.aio.Server:
        server = grpc.aio.server()
        for method in pb.DESCRIPTOR.services_by_name["InferenceService"].methods:
            # The stub registers every method of a service, whether it is scripted or not.
            if not hasattr(found, method.name):
                setattr(found, method.name, None)
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(found, server)  # type: ignore[arg-type]
        model_pb2_grpc.add_ModelServiceServicer_to_server(found, server)  # type: ignore[arg-type]
        found.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        return server

    with EventLoopThread() as loop:
        server = loop.run(start())
        try:
            yield found
        finally:
            loop.run(server.stop(0))
