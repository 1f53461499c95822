"""The audit log: who did what that needs the role admin, a line of JSON each, in a file of its own."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)
_MOST_WAITING = 10_000
"""Lines that wait while the file cannot be written."""
_RETRY_SECONDS = 1.0
_LAST_SECONDS = 2.0
"""What writing may take at the end."""
_MODE = 0o600
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class AuditLog:
    """Appends to a file from a thread of its own; ``write`` never waits, whatever the disk does.

    Lines that cannot be written wait, in their order, until they can; past ten thousand they are lost, which is
    counted (``on_lost``) and told by a line of its own once there is room. The file is only ever appended to;
    ``reopen`` goes on in a new one where it was renamed. Raises OSError where it cannot be opened at the start. Without
    a path nothing is kept.
    """

    def __init__(self, path: Path | None, on_lost: Callable[[], object] = lambda: None) -> None:
        self._path = path
        self._on_lost = on_lost
        self._waiting: deque[bytes] = deque()
        self._condition = threading.Condition()
        self._is_closing = self._must_reopen = self._is_failing = False
        self._lost = 0
        self._rest = b""
        """What of the first waiting line is not in the file yet, where a part of it is."""
        self._file = -1
        self._thread: threading.Thread | None = None
        if path is not None:
            self._file = _open(path)
            self._thread = threading.Thread(target=self._run, name="audit log", daemon=True)
            self._thread.start()

    def write(self, event: str, **fields: Any) -> None:
        """A line: the time, the event, and the fields that are not None. Safe from any thread."""
        if self._thread is None:
            return
        line = _line(event, fields)
        with self._condition:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting.append(line)
                self._condition.notify()
                return
            self._lost += 1
        self._on_lost()

    def reopen(self) -> None:
        """Go on in the file that has the path now. Safe from any thread."""
        with self._condition:
            self._must_reopen = True
            self._condition.notify()

    def close(self) -> None:
        """Write what waits, for two seconds at most; what cannot be written goes to the ordinary log."""
        if self._thread is None:
            return
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self._thread.join(_LAST_SECONDS)
        with self._condition:
            left, self._thread = list(self._waiting), None
        for line in left:
            _log.error("a line of the audit log was not written", extra={"line": line.decode().rstrip()})

    def _run(self) -> None:
        while self._await_work():
            try:
                self._append_waiting()
            except OSError as error:
                self._fail(error)
                with self._condition:
                    if self._is_closing:
                        return
                    self._condition.wait_for(lambda: self._is_closing or self._must_reopen, _RETRY_SECONDS)
        os.close(self._file)

    def _await_work(self) -> bool:
        """Whether there is anything left to do."""
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._must_reopen or self._is_closing)
            return bool(self._waiting or self._must_reopen) or not self._is_closing

    def _reopen_if_asked(self) -> None:
        with self._condition:
            asked, self._must_reopen = self._must_reopen, False
        if not asked or self._path is None:
            return
        try:
            new = _open(self._path)
        except OSError as error:
            _log.error("the audit log cannot be opened again, and goes on in the old file: %s", error)
            return
        os.close(self._file)
        self._file, self._rest = new, b""

    def _append_waiting(self) -> None:
        """Raises OSError; what was not written waits on."""
        while True:
            self._reopen_if_asked()  # before each line: those behind a reload belong to the new file
            with self._condition:
                line = self._waiting[0] if self._waiting else None
            if line is None:
                break
            self._append(line)
            with self._condition:
                self._waiting.popleft()
                lost, self._lost = self._lost, 0
                if lost:
                    self._waiting.appendleft(_line("lost", {"lines": lost}))
            if self._is_failing:
                self._is_failing = False
                _log.warning("the audit log is written again")
        with contextlib.suppress(OSError):  # not every file system can
            os.fdatasync(self._file)

    def _append(self, line: bytes) -> None:
        self._rest = self._rest or line
        while self._rest:
            self._rest = self._rest[os.write(self._file, self._rest) :]

    def _fail(self, error: OSError) -> None:
        if not self._is_failing:
            self._is_failing = True
            _log.error("the audit log cannot be written, and its lines wait: %s", error)


def _line(event: str, fields: dict[str, Any]) -> bytes:
    told = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
    given = {name: value for name, value in fields.items() if value is not None}
    return (json.dumps(told | given, default=str) + "\n").encode()


def _open(path: Path) -> int:
    """A descriptor that appends. A last line that was cut off, as by a full disk, is ended first. Raises OSError."""
    try:
        file = os.open(path, _FLAGS, _MODE)
    except OSError as error:
        raise OSError(f"audit_log: {path}: {error.strerror}") from None
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        os.close(file)
        raise OSError(f"audit_log: {path}: not a regular file")
    if found.st_size and os.pread(file, 1, found.st_size - 1) != b"\n":
        with contextlib.suppress(OSError):
            os.write(file, b"\n")
    return file
