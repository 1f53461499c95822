"""The server under test: a process of its own, called through real gRPC; and its engine without the wire."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from ift_serve.cli.bench import Report, Request, run
from ift_serve.client import AsyncClient
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams
from ift_serve.engines.process import engine_process
from ift_serve.frontend.engine_client import EngineClient

_READY = "ift-serve ready on "
_STOP_SECONDS = 60.0


@contextlib.contextmanager
def server(model: Path, *options: str, log: Path | None = None) -> Iterator[tuple[str, int]]:
    """Start ``ift-serve serve`` on a free port; yields its address and process id."""
    command = [sys.executable, "-c", "from ift_serve.cli import main; main()", "serve", str(model), "--port", "0"]
    with running([*command, "--log-level", "warning", *options], log=log) as found:
        yield found


@contextlib.contextmanager
def running(
    command: list[str], *, log: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    """Run a command that says where it serves, until the end of the block; ``environment`` is added to this one."""
    inherited = {k: v for k, v in os.environ.items() if k not in {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}}
    with contextlib.ExitStack() as stack:
        errors = None if log is None else stack.enter_context(log.open("ab"))
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=inherited | (environment or {})
        )
        try:
            yield _address(process), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(_READY):
            return line.removeprefix(_READY).split(",")[0].strip()
    raise RuntimeError(f"the server ended with exit code {process.wait()} before it was ready")


@contextlib.asynccontextmanager
async def client(address: str) -> AsyncIterator[AsyncClient]:
    """A client without retries: a refusal is a finding."""
    async with AsyncClient(address, timeout=900, retries=0) as connected:
        yield connected


def through_grpc(address: str, requests: list[Request], concurrency: int, *, whole: bool = False) -> Report:
    """One run of all requests, as streams or for whole answers."""

    async def go() -> Report:
        async with client(address) as connected:
            return await run(connected, requests, concurrency, whole=whole)

    return asyncio.run(go())


class WithoutWire:
    """The same engine process, its tokens taken from it directly: no gRPC, no detokenisation."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config

    def rates(self, requests: list[Request], concurrency: int, rounds: int) -> list[float]:
        """Tokens per second of each round, after one that warms up."""
        return asyncio.run(self._go(requests, concurrency, rounds))

    async def _go(self, requests: list[Request], concurrency: int, rounds: int) -> list[float]:
        engine = engine_process(self._config)
        await engine.start(300)
        try:
            return [await self._round(engine, requests, concurrency, n) for n in range(rounds + 1)][1:]
        finally:
            await engine.close()

    async def _round(self, engine: EngineClient, requests: list[Request], concurrency: int, number: int) -> float:
        gate = asyncio.Semaphore(concurrency)

        async def one(index: int, request: Request) -> int:
            sampling = SamplingParams(temperature=0.0, max_new_tokens=request.new_tokens, ignore_eos=True)
            asked = GenerateRequest(
                request_id=f"{number}-{index}",
                token_ids=list(request.token_ids),
                sampling=sampling,
                arrival=time.monotonic(),
            )
            async with gate:
                return sum([len(o.token_ids) async for o in engine.generate(asked)])

        begun = time.perf_counter()
        tokens = sum(await asyncio.gather(*(one(i, r) for i, r in enumerate(requests))))
        return tokens / (time.perf_counter() - begun)
