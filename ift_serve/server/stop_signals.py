"""The signals that a server takes, heard even while the event loop is blocked."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

_log = logging.getLogger(__name__)
_STOP = (signal.SIGTERM, signal.SIGINT)
_HANGUP = getattr(signal, "SIGHUP", None)  # not on Windows
_PROFILE = getattr(signal, "SIGUSR2", None)


class StopSignals:
    """The first signal asks for the end, the second ends the process at once, and so does the end of the time.

    Python tells of a signal in the main thread, between two of its instructions, which a blocked loop may never reach.
    The interpreter also writes the signal's number to a socket, which a thread of its own reads here. The engine's
    process ends by itself when this one does. Use it in the main thread.

    patience: seconds from the first signal to the end of the process. ``on_stop`` is called once, ``on_hangup`` at each
    SIGHUP and ``on_profile`` at each SIGUSR2, in that thread. Native code that keeps the interpreter's lock is not
    interrupted.
    """

    def __init__(self, patience: float) -> None:
        self.on_stop: Callable[[], object] = lambda: None
        self.on_hangup: Callable[[], object] = lambda: None
        self.on_profile: Callable[[], object] = lambda: None
        self._patience = patience
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._asked = False
        self._previous: dict[int, object] = {}
        self._thread = threading.Thread(target=self._listen, name="stop signals", daemon=True)

    def __enter__(self) -> StopSignals:
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in (*_STOP, *filter(None, (_HANGUP, _PROFILE))):
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
        self._read.close()

    def _listen(self) -> None:
        while heard := self._heard():
            for number in heard:
                if number == _HANGUP:
                    self.on_hangup()
                elif number == _PROFILE:
                    self.on_profile()
                elif number in _STOP and self._asked:
                    _end("a second signal")
                elif number in _STOP:
                    self._asked = True
                    _log.info("asked to end", extra={"signal": signal.Signals(number).name})
                    self._read.settimeout(self._patience)
                    self.on_stop()

    def _heard(self) -> bytes:
        try:
            return self._read.recv(16)
        except TimeoutError:
            _end(f"the end did not come within {self._patience:g} seconds")
            return b""


def _ignore(number: int, frame: FrameType | None) -> None:
    """The thread hears of it."""


def _end(why: str) -> None:
    _log.error("the process ends at once: %s", why)
    os._exit(1)
