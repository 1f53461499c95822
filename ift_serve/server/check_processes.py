"""Processes that judge texts for the server: beside its event loop, and ended when a text takes too long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import Any

import grpc

from ift_serve.checks.worker import HEAD, length_of, pack
from ift_serve.server.errors import StatusError

_COUNT = 2
_START_SECONDS = 60.0
_MODULE = "ift_serve.checks.worker"


class CheckProcesses:
    """A few processes of :mod:`ift_serve.checks.worker`, started when they are first needed.

    ``time_limit``: seconds for one request. A process that is over it, or whose caller has gone, is ended; the next
    request gets a new one.
    """

    def __init__(self, time_limit: float, count: int = _COUNT) -> None:
        self._time_limit = time_limit
        self._free: asyncio.Queue[_CheckProcess | None] = asyncio.Queue()
        for _ in range(count):
            self._free.put_nowait(None)
        self._running: set[_CheckProcess] = set()
        self._is_closed = False

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """What a process answers. Raises StatusError RESOURCE_EXHAUSTED where it takes too long or too much memory."""
        process = await self._free.get()
        kept: _CheckProcess | None = None
        try:
            if process is None or process.is_over:
                process = await self._started()
            async with asyncio.timeout(self._time_limit):
                answer = await process.ask(message)
            kept = process
            return answer
        except TimeoutError:
            said = f"the checks of this response are not decided within {self._time_limit:g} seconds"
            raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, said) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            said = "the checks of this response need more memory than they may have"
            raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, said) from None
        finally:
            if kept is None and process is not None:
                self._running.discard(process)
                process.end()
            self._free.put_nowait(kept)

    async def _started(self) -> _CheckProcess:
        if self._is_closed:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down", retry_after=1.0)
        process = await _CheckProcess.start()
        self._running = {one for one in self._running if not one.is_over} | {process}
        return process

    async def close(self) -> None:
        """End all processes."""
        self._is_closed = True
        for process in self._running:
            process.end()
        await asyncio.gather(*(process.ended() for process in self._running))
        self._running.clear()


class _CheckProcess:
    """One process. It answers one request after the other."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._in, self._out = process.stdin, process.stdout

    @classmethod
    async def start(cls) -> _CheckProcess:
        """Start it and wait until it answers. Raises StatusError."""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        pipe = asyncio.subprocess.PIPE
        # Messages are small but for the text, which is bounded by the size of a request.
        process = cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", _MODULE, stdin=pipe, stdout=pipe, env=environment
            )
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                await process._read()
        except (TimeoutError, asyncio.IncompleteReadError):
            process.end()
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE, "the process that judges texts did not start", retry_after=1.0
            ) from None
        except BaseException:
            process.end()
            raise
        return process

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to a message."""
        self._in.write(pack(message))
        await self._in.drain()
        return await self._read()

    async def _read(self) -> dict[str, Any]:
        body = await self._out.readexactly(length_of(await self._out.readexactly(HEAD)))
        answer: dict[str, Any] = json.loads(body)
        return answer

    @property
    def is_over(self) -> bool:
        """Whether it has ended while nobody asked."""
        return self._process.returncode is not None

    def end(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> None:
        """Wait until it is gone."""
        await self._process.wait()
