"""``python -I -S guardian.py SIGNALS COPIES PID PATIENCE``: ends a server that was asked to end and does not.

A process of its own, since whatever keeps the server's interpreter busy, native code that holds its lock included, does
not keep this one. The server's C-level handler writes the number of each signal to the socket ``SIGNALS`` even then; it
is read here, and handed on by ``COPIES`` to the server's own thread, which ends the server in order where it can. This
one waits a little longer and then kills. Nothing but the standard library, so that it is small and starts at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time

STOP = (signal.SIGTERM, signal.SIGINT)
MARGIN = 0.5
"""Seconds that the server's own way of ending has before it is killed."""
END_OF_THE_FIRST = getattr(signal, "SIGUSR1", signal.SIGTERM)
"""What ends a server that is process 1 of a container, which the kernel keeps from SIGKILL; see ``stop_signals``."""


def watch(heard: socket.socket, copies: socket.socket, server: int, patience: float) -> None:
    """Until the server ends. ``patience``: seconds from the first signal to the end."""
    deadline: float | None = None
    while True:
        heard.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
        try:
            numbers = heard.recv(16)
        except TimeoutError:
            _end(server)
            return
        if not numbers:
            return
        with contextlib.suppress(BlockingIOError):  # who does not read them will be ended by the clock
            copies.send(numbers, socket.MSG_DONTWAIT)
        for number in numbers:
            if number in STOP:
                now = time.monotonic()
                deadline = now + patience + MARGIN if deadline is None else min(deadline, now + MARGIN)


def _end(server: int) -> None:
    line = {"level": "error", "logger": "ift_serve.server.guardian", "message": "the server does not end: it is killed"}
    with contextlib.suppress(OSError):
        print(json.dumps(line), file=sys.stderr, flush=True)
    if os.getppid() == server:
        os.kill(server, END_OF_THE_FIRST if server == 1 else signal.SIGKILL)


if __name__ == "__main__":
    for ignored in (*STOP, signal.SIGHUP, signal.SIGUSR2):  # which may be sent to all processes of a group
        signal.signal(ignored, signal.SIG_IGN)
    given = sys.argv[1:]
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        watch(socket.socket(fileno=int(given[0])), socket.socket(fileno=int(given[1])), int(given[2]), float(given[3]))
