"""The engine process: requests from a socket into the core, its outputs back, one message a step."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable

import zmq

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.adapter import LoadAdapter, UnloadAdapter
from ift_serve.engine.protocol.generate import GenerateRequest, StopCandidate
from ift_serve.engine.protocol.model import Failed, ModelDescription, Ready
from ift_serve.engine.protocol.progress import Progress
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engine.protocol.wire import Abort, EngineInput, Profile, StepOutputs, decode_input, encode
from ift_serve.system.parent import die_with_parent

_log = logging.getLogger(__name__)

_PARENT_CHECK_MILLISECONDS = 1000
_PAUSE_MILLISECONDS = 1

BuildCore = Callable[[EngineConfig], tuple[EngineCore, ModelDescription]]
"""Loads the model and puts an engine together. Takes seconds; raises with a message for the operator."""


def handle(core: EngineCore, message: EngineInput) -> bool:
    """Give one message to the core; False for ``Shutdown``."""
    match message:
        case GenerateRequest() | ScoreRequest():
            core.add(message)
        case StopCandidate(request_id=request_id, candidate=candidate):
            core.stop(request_id, candidate)
        case Abort(request_id=request_id):
            core.abort(request_id)
        case LoadAdapter():
            core.load_adapter(message)
        case UnloadAdapter():
            core.unload_adapter(message)
        case Profile():
            core.profile()
        case _:
            return False
    return True


def start_failure(error: Exception) -> str:
    """What to tell the operator; where it is not said for people, the log has the traceback."""
    if isinstance(error, ValueError | OSError) and str(error):
        return str(error)
    _log.error("the engine cannot start", exc_info=error)
    return f"{type(error).__name__}: {error}"


class EngineLoop:
    """Feeds one core from one connected PAIR socket."""

    def __init__(
        self, core: EngineCore, socket: zmq.Socket[bytes], parent: int, progress: Progress, patience: float
    ) -> None:
        self._core = core
        self._progress = progress
        self._idle_milliseconds = min(_PARENT_CHECK_MILLISECONDS, int(1000 * patience / 4))
        self._socket = socket
        self._parent = parent
        self._woken, wake_end = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(wake_end, False)
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._woken, zmq.POLLIN)
        core.on_wake(lambda: _write_byte(wake_end))

    def run(self) -> None:
        """Serve until ``Shutdown`` comes or the parent is gone. Blocks only while there is nothing to do."""
        core, socket = self._core, self._socket
        steps = 0
        while True:
            if not core.has_work() and not self._wait():
                return
            if not self._drain():
                return
            said = core.step() if core.has_work() else StepOutputs(outputs=[], stats=core.stats())
            socket.send(encode(said))
            if core.has_work() and said.stats.steps == steps and not said.outputs:
                # Work that cannot be done now must not flood the server process with empty messages.
                self._poller.poll(_PAUSE_MILLISECONDS)
            steps = said.stats.steps

    def _wait(self) -> bool:
        """Sleep until a message is there or the core is woken; False when the parent is gone."""
        self._progress.idle()
        while not (ready := self._poller.poll(self._idle_milliseconds)):
            self._progress.idle()
            if os.getppid() != self._parent:
                return False
        if any(source == self._woken for source, _ in ready):
            os.read(self._woken, 4096)
        return True

    def _drain(self) -> bool:
        """Take in all messages that are there; False for ``Shutdown``."""
        while True:
            try:
                raw = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return True
            if not handle(self._core, decode_input(raw)):
                return False


def _write_byte(pipe: int) -> None:
    # A full pipe wakes as well as one more byte would.
    with contextlib.suppress(BlockingIOError):
        os.write(pipe, b"w")


def worker_main(build: BuildCore, arguments: list[str]) -> int:
    """Entry point of an engine process.

    ``arguments``: the endpoint to connect to, the parent's process id, and the descriptor of the page that progress is
    noted on. The configuration comes as JSON on stdin. Returns the exit code. Signals that a terminal or an init
    system sends to all processes are left to the parent, which lets calls finish before it sends ``Shutdown``.
    """
    endpoint, parent, page = arguments[0], int(arguments[1]), int(arguments[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(parent)
    context = zmq.Context()
    socket: zmq.Socket[bytes] = context.socket(zmq.PAIR)
    socket.set_hwm(0)
    socket.linger = 1000
    socket.connect(endpoint)
    try:
        try:
            config = EngineConfig.model_validate_json(sys.stdin.buffer.read())
            core, model = build(config)
        except Exception as error:
            socket.send(encode(Failed(start_failure(error))))
            return 1
        gc.freeze()  # a full collection over torch's modules would stall a step for tens of milliseconds
        gc.enable()
        progress = Progress(page)
        core.report_to(progress)
        socket.send(encode(Ready(model)))
        EngineLoop(core, socket, parent, progress, config.patience).run()
        return 0
    finally:
        socket.close()
        context.term()
