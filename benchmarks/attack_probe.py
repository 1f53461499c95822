"""What another caller feels: health checks and short answers, in a process of its own.

Reads `begin` and `end` lines; answers each `end` with a line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc

_PAUSE = 0.02
_PATIENCE = 120.0
"""Seconds a probe waits for one answer."""


class Felt:
    """Seconds of one kind of call, and the statuses of those that failed."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.errors: dict[str, int] = {}

    @contextlib.contextmanager
    def call(self) -> Any:
        """Time one call."""
        begun = time.perf_counter()
        try:
            yield
        except grpc.aio.AioRpcError as error:
            name = error.code().name
            self.errors[name] = self.errors.get(name, 0) + 1
        finally:
            self.seconds.append(time.perf_counter() - begun)

    def report(self) -> dict[str, Any]:
        """Milliseconds."""
        ordered = sorted(self.seconds)
        return {
            "calls": len(ordered),
            "median": 1e3 * statistics.median(ordered) if ordered else None,
            "p99": 1e3 * ordered[int(0.99 * (len(ordered) - 1))] if ordered else None,
            "max": 1e3 * ordered[-1] if ordered else None,
            "errors": self.errors,
        }


async def check_health(stub: Any, felt: Felt) -> None:
    """One health check after another."""
    while True:
        with felt.call():
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=_PATIENCE)
        await asyncio.sleep(_PAUSE)


async def ask(stub: Any, token: str, felt: Felt) -> None:
    """Short questions; what is timed is the first token."""
    metadata = (("authorization", f"Bearer {token}"),)
    request = pb.StreamGenerateRequest(
        prompt=pb.Prompt(instruction=pb.InstructionPrompt(instruction="What is 2 + 3?")),
        sampling=pb.Sampling(temperature=0, max_new_tokens=2, ignore_eos=True),
    )
    while True:
        call = stub.StreamGenerate(request, metadata=metadata, timeout=_PATIENCE)
        with felt.call():
            if await call.read() is grpc.aio.EOF:  # type: ignore[attr-defined]
                await call.code()
        call.cancel()
        await asyncio.sleep(_PAUSE)


async def main(target: str, token: str) -> None:
    """Probe whenever told to."""
    loop = asyncio.get_running_loop()
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        grpc.aio.insecure_channel(target, options=own) as first,
        grpc.aio.insecure_channel(target, options=own) as second,
    ):
        health, inference = health_pb2_grpc.HealthStub(first), inference_pb2_grpc.InferenceServiceStub(second)
        print("ready", flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline) == "begin\n":
            felt = {"health": Felt(), "first_token": Felt()}
            tasks = [
                loop.create_task(check_health(health, felt["health"])),
                loop.create_task(ask(inference, token, felt["first_token"])),
            ]
            await loop.run_in_executor(None, sys.stdin.readline)
            # A call that still waits is one that was held up until now.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            print(json.dumps({name: one.report() for name, one in felt.items()}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
