"""Forms are first read in a process that is ended when one takes too long, which a thread cannot be.

``python -m ift_serve.decoding.form_trial`` reads one form after another over standard input and output: a message is
its length in four bytes, big-endian, and JSON, ``{"kind", "text"}``, answered by ``{"error"}``, empty where the form
can be used. The tokens are single bytes there: what takes time is the form, not the vocabulary.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import weakref
from queue import Queue
from typing import IO, Any, BinaryIO

from ift_serve.decoding.forms import FormatError, grammar_of
from ift_serve.engine.protocol.output import OutputFormat

SECONDS = 1.0
"""Of processor time for reading a form and for the first tokens of an answer; that of a usual schema is a hundredth."""
_WALL_SECONDS = 60.0
"""What that may take on a machine that is busy."""
_MEMORY = 2**30
"""Bytes of address space beyond what the process has when it begins."""
_TOO_MUCH = f"takes more than {SECONDS:g} s or {_MEMORY >> 20} MiB to read; make it simpler"
_NICENESS = 5
_STEPS = 24
_KEPT = 256
_LENGTH = struct.Struct(">I")


class FormTrials:
    """Processes that try forms, one for each thread that reads some. They start when they are needed."""

    def __init__(self, count: int) -> None:
        self._free: Queue[subprocess.Popen[bytes] | None] = Queue()
        for _ in range(count):
            self._free.put(None)
        self._passed: dict[tuple[str, str], None] = {}
        """Forms that were tried lately; callers mostly repeat one."""
        self._running: set[subprocess.Popen[bytes]] = set()
        weakref.finalize(self, _end_all, self._running)

    def check(self, output: OutputFormat) -> None:
        """Raises FormatError where a form cannot be used, or takes too long. Waits for a process; for any thread."""
        form = (output.kind, output.text)
        if form in self._passed:
            return
        process = self._free.get()
        kept = None
        try:
            if process is not None and process.poll() is not None:  # ended by somebody else, while idle
                self._running.discard(process)
                process = None
            if process is None:
                process = _started()
                self._running.add(process)
            error = _ask(process, output)
            kept = process
        except (OSError, EOFError):
            raise FormatError(_TOO_MUCH) from None
        finally:
            if kept is None and process is not None:
                self._running.discard(process)
                _end(process)
            self._free.put(kept)
        if error:
            raise FormatError(error)
        if len(self._passed) >= _KEPT:
            self._passed.pop(next(iter(self._passed)), None)
        self._passed[form] = None


def _started() -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = (sys.executable, "-P", "-m", __name__)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, whatever it does."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _end_all(processes: set[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        _end(process)


def _ask(process: subprocess.Popen[bytes], output: OutputFormat) -> str:
    """What is wrong with a form. Raises OSError or EOFError where the process has ended over it, or hangs."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(_packed({"kind": output.kind, "text": output.text}))
    process.stdin.flush()
    if not select.select([process.stdout], [], [], _WALL_SECONDS)[0]:
        raise TimeoutError
    return str(_read(process.stdout)["error"])


def _packed(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return _LENGTH.pack(len(body)) + body


def _read(source: IO[bytes]) -> dict[str, Any]:
    """The next message. Raises EOFError."""
    head = source.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    body = source.read(_LENGTH.unpack(head)[0])
    message: dict[str, Any] = json.loads(body)
    return message


def tried(output: OutputFormat) -> str:
    """What is wrong with a form; empty where it can be used. As long as that takes."""
    try:
        grammar = grammar_of(output)
    except FormatError as error:
        return str(error)
    from llguidance import LLMatcher, LLTokenizer

    matcher = LLMatcher(LLTokenizer("byte"), grammar)
    for _ in range(_STEPS):
        if matcher.is_error() or matcher.is_stopped():
            break
        # Any byte that may come: what is hostile is so for all of them.
        allowed = matcher.compute_bitmask()
        place = next((index for index, bits in enumerate(allowed) if bits), None)
        if place is None:
            break
        bits = allowed[place]
        matcher.consume_token(8 * place + (bits & -bits).bit_length() - 1)
    return ""


def main(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer until the source ends, which it does when the engine is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    if sys.platform == "linux":
        with contextlib.suppress(ImportError):  # then each form is refused with what to do
            import llguidance  # noqa: F401  (before what it takes is counted)
        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + _MEMORY, held + _MEMORY))
    while True:
        try:
            message = _read(source)
        except EOFError:
            return
        # The default action of the signal is to end the process, whatever native code is doing.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        error = tried(OutputFormat(kind=message["kind"], text=message["text"]))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sink.write(_packed({"error": error}))
        sink.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
