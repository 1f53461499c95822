"""The signals that a server takes, heard even while the event loop is blocked."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

from ift_serve.server import guardian
from ift_serve.server.guardian import STOP

_log = logging.getLogger(__name__)
_HANGUP = getattr(signal, "SIGHUP", None)  # not on Windows
_PROFILE = getattr(signal, "SIGUSR2", None)


class StopSignals:
    """The first signal asks for the end, the second ends the process at once, and so does the end of the time.

    Python tells of a signal in the main thread, between two of its instructions, which a blocked loop may never reach.
    The interpreter also writes the signal's number to a socket, at once and without its lock. A small process reads it
    (``guardian.py``), which kills this one where native code keeps the lock, and hands it to a thread here. The
    engine's process ends by itself when this one does. Use it in the main thread.

    patience: seconds from the first signal to the end of the process. ``on_stop`` is called once, ``on_hangup`` at each
    SIGHUP and ``on_profile`` at each SIGUSR2, in that thread.
    """

    def __init__(self, patience: float) -> None:
        self.on_stop: Callable[[], object] = lambda: None
        self.on_hangup: Callable[[], object] = lambda: None
        self.on_profile: Callable[[], object] = lambda: None
        self._patience = patience
        self._written, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._guardian: subprocess.Popen[bytes] | None = None
        self._read = self._written
        self._asked = False
        self._previous: dict[int, object] = {}
        self._thread = threading.Thread(target=self._listen, name="stop signals", daemon=True)

    def __enter__(self) -> StopSignals:
        if os.name == "posix":
            self._start_guardian()
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in (*STOP, *filter(None, (_HANGUP, _PROFILE))):
            self._previous[number] = signal.signal(number, _ignore)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup)
        self._write.close()
        self._thread.join()
        self._written.close()
        if self._guardian is not None:
            self._guardian.wait()

    def _start_guardian(self) -> None:
        """Without one, as where no process can be made, native code that keeps the lock is not interrupted."""
        copies, theirs = socket.socketpair()
        descriptors = self._written.fileno(), theirs.fileno()
        numbers = map(str, (*descriptors, os.getpid(), self._patience))
        try:
            self._guardian = subprocess.Popen(
                [sys.executable, "-I", "-S", guardian.__file__, *numbers],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=descriptors,
            )
        except OSError as error:
            _log.warning("no process can be made that ends this one where it hangs: %s", error)
            copies.close()
        else:
            self._read = copies
            if os.getpid() == 1:
                _exit_natively_at(guardian.END_OF_THE_FIRST)
        theirs.close()

    def _listen(self) -> None:
        while heard := self._heard():
            for number in heard:
                if number == _HANGUP:
                    self.on_hangup()
                elif number == _PROFILE:
                    self.on_profile()
                elif number in STOP and self._asked:
                    _end("a second signal")
                elif number in STOP:
                    self._asked = True
                    _log.info("asked to end", extra={"signal": signal.Signals(number).name})
                    self._read.settimeout(self._patience)
                    self.on_stop()

    def _heard(self) -> bytes:
        """Numbers of signals; none at the end."""
        try:
            heard = self._read.recv(16)
            if not heard and self._read is not self._written:
                # The guardian is gone, killed perhaps; it reads no more.
                self._written.settimeout(self._read.gettimeout())
                self._read.close()
                self._read = self._written
                heard = self._read.recv(16)
            return heard
        except TimeoutError:
            _end(f"the end did not come within {self._patience:g} seconds")
            return b""


def _exit_natively_at(number: int) -> None:
    """Have a signal call the C library's ``_exit``, which needs no interpreter.

    The kernel keeps SIGKILL and every default action from the first process of a container, but not its own handlers.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal.restype = ctypes.c_void_p
    library.signal(number, ctypes.cast(library._exit, ctypes.c_void_p))


def _ignore(number: int, frame: FrameType | None) -> None:
    """The thread hears of it."""


def _end(why: str) -> None:
    _log.error("the process ends at once: %s", why)
    os._exit(1)
