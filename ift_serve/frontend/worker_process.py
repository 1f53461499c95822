"""One life of an engine process, as its parent sees it: the process, its socket and their private directory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import zmq
import zmq.asyncio

from ift_kernels.cache_directory import cache_directory
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.model import Failed, ModelDescription, Ready
from ift_serve.engine.protocol.progress import ProgressView, open_page
from ift_serve.engine.protocol.wire import EngineInput, Shutdown, StepOutputs, decode_output, encode
from ift_serve.frontend.errors import EngineStartError
from ift_serve.frontend.hang_detector import HangDetector
from ift_serve.system.machine import processors

_log = logging.getLogger(__name__)

_LONGEST_SOCKET_PATH = 100
_SHUTDOWN_SECONDS = 2.0
_IN_A_ROW = 16
_KEPT_PRODUCTS = "256"
_REAP_SECONDS = 10.0
"""A killed process that waits for a disk or a device ends when that answers."""


def _private_directory() -> str:
    """A new directory for this user only, with a path short enough for a Unix socket.

    Raises EngineStartError where there is no place for one.
    """
    for parent in (None, "/tmp", "/dev/shm", cache_directory("run")):
        try:
            path = tempfile.mkdtemp(prefix="ift-serve-", dir=parent)
        except OSError:
            continue
        if len(path) < _LONGEST_SOCKET_PATH - len("/engine"):
            return path
        os.rmdir(path)
    raise EngineStartError("no directory can be written for the engine's socket; mount a writable /tmp, or set TMPDIR")


def _environment(config: EngineConfig, directory: str) -> dict[str, str]:
    """This process's, with idle compute threads asleep: spinning ones starve each other on few cores."""
    environment = dict(os.environ)
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A few microseconds of spinning bridge the gaps within a step and halve the time of small matrix products.
    environment.setdefault("GOMP_SPINCOUNT", "2000")
    # oneDNN and torch keep compiled products for every number of rows; by default 1024 of each kind, hundreds of MiB.
    environment.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _KEPT_PRODUCTS)
    environment.setdefault("LRU_CACHE_CAPACITY", _KEPT_PRODUCTS)
    try:
        tempfile.gettempdir()
    except OSError:  # torch needs one, and what the socket lies in can be written
        environment["TMPDIR"] = os.path.dirname(directory)
    if "TRITON_CACHE_DIR" not in environment and (kernels := cache_directory("triton")) is not None:
        environment["TRITON_CACHE_DIR"] = str(kernels)
    if config.threads is not None:
        environment["OMP_NUM_THREADS"] = str(config.threads)
    environment.setdefault("OMP_NUM_THREADS", str(processors()))
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return environment


class WorkerProcess:
    """Create with ``spawn``; ``ready`` then ``read``; always ``close``."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        socket: zmq.asyncio.Socket,
        directory: str,
        progress: ProgressView,
        patience: float,
    ) -> None:
        self._process = process
        self._socket = socket
        self._directory = directory
        self._progress = progress
        self._detector = HangDetector(progress, process.pid, patience)
        self._listens = False
        self._has_work: Callable[[], bool] = lambda: False
        self.hung = False
        """Whether it was killed because it made no progress."""
        self._ended = asyncio.ensure_future(process.wait())
        self._watch = asyncio.ensure_future(self._kill_when_hung())

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def spawn(cls, context: zmq.asyncio.Context, config: EngineConfig, module: str) -> WorkerProcess:
        """Start ``python -m module`` and hand it the configuration."""
        directory = _private_directory()
        socket = context.socket(zmq.PAIR)
        socket.set_hwm(0)
        socket.linger = 0
        page = open_page()
        try:
            endpoint = f"ipc://{directory}/engine"
            socket.bind(endpoint)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                module,
                endpoint,
                str(os.getpid()),
                str(page),
                stdin=asyncio.subprocess.PIPE,
                stdout=2,
                env=_environment(config, directory),
                pass_fds=(page,),
            )
        except BaseException:
            os.close(page)
            socket.close()
            shutil.rmtree(directory, ignore_errors=True)
            raise
        child = cls(process, socket, directory, ProgressView(page), config.patience)
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):
            process.stdin.write(config.model_dump_json().encode())
            await process.stdin.drain()
        process.stdin.close()
        return child

    async def ready(self, timeout: float) -> ModelDescription:
        """Wait until the model is loaded. Raises ``EngineStartError``. ``timeout``: seconds."""
        first = asyncio.ensure_future(self._socket.recv())
        try:
            await asyncio.wait({first, self._ended}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not first.done() and self._ended.done():
                # What the process said last may still be on its way through the socket's thread.
                await asyncio.wait({first}, timeout=0.2)
            if not first.done():
                raise EngineStartError(self._why_not_ready(timeout))
            said = decode_output(first.result())
        finally:
            first.cancel()
        if isinstance(said, Ready):
            self._listens = True
            # Connected: the path has served its purpose, and a server process that is killed leaves nothing behind.
            shutil.rmtree(self._directory, ignore_errors=True)
            return said.model
        raise EngineStartError(said.message if isinstance(said, Failed) else "the engine did not say it is ready")

    def _why_not_ready(self, timeout: float) -> str:
        if self.hung:
            return f"the engine made no progress for {self._detector.stuck:.0f} seconds while it started; see its log"
        if self._ended.done():
            return f"the engine process ended ({self.exit_text()}) before it was ready; its log says why"
        return f"the engine was not ready after {timeout:.0f} seconds; a large model may need a longer timeout"

    def exit_text(self) -> str:
        """How the process ended, for people."""
        if self.hung:
            return f"killed: no progress for {self._detector.stuck:.0f} seconds"
        code = self._process.returncode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    async def _kill_when_hung(self) -> None:
        while True:
            await asyncio.sleep(self._detector.interval)
            if self._detector.look(starting=not self._listens, has_work=self._has_work()):
                self.hung = True
                _log.error("the engine makes no progress for %.1f s; it is killed", self._detector.stuck)
                self.kill()
                return

    async def read(self, take: Callable[[StepOutputs], None], has_work: Callable[[], bool] = lambda: False) -> None:
        """Hand every step's outputs to ``take`` until the process ends. ``has_work``: whether it has to compute."""
        self._has_work = has_work
        reader = asyncio.ensure_future(self._read(take))
        try:
            await asyncio.wait({reader, self._ended}, return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()
        finally:
            reader.cancel()

    async def _read(self, take: Callable[[StepOutputs], None]) -> None:
        for number in itertools.count():
            said = decode_output(await self._socket.recv())
            if isinstance(said, StepOutputs):
                take(said)
            if number % _IN_A_ROW == 0:
                await asyncio.sleep(0)  # receiving what is there already lets nothing else run

    def send(self, message: EngineInput) -> None:
        """Queue a message to the engine. Never blocks; lost when the engine is dead, which ``read`` notices."""
        with contextlib.suppress(zmq.ZMQError):
            sent = asyncio.ensure_future(self._socket.send(encode(message), zmq.NOBLOCK))
            sent.add_done_callback(_ignore_result)

    def kill(self) -> None:
        """End the process at once, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        """End the process, kindly if it is ready, and remove every trace of it."""
        try:
            if self._listens and not self._ended.done():
                self.send(Shutdown())
                await asyncio.wait({self._ended}, timeout=_SHUTDOWN_SECONDS)
        finally:
            self.kill()
            self._watch.cancel()
            self._socket.close()
            self._progress.close()
            shutil.rmtree(self._directory, ignore_errors=True)
            await asyncio.wait({self._ended}, timeout=_REAP_SECONDS)
            if not self._ended.done():
                _log.error("process %d was killed and has not ended yet: it waits for a disk or a device", self.pid)


def _ignore_result(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
