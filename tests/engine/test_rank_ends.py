"""A rank ends with the process that started it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ranks need Linux")

_PARENT = """
import os, socket, subprocess, sys, time
own, theirs = socket.socketpair()
module = "ift_serve.engine.runner.parallel.follower"
command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(os.getpid())]
print(subprocess.Popen(command, pass_fds=(theirs.fileno(),)).pid, flush=True)
time.sleep(600)
"""


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _asked_to_die(pid: int) -> bool:
    """Whether it ignores SIGTERM, which it does right before it asks the kernel to end it with its parent."""
    with open(f"/proc/{pid}/status") as file:
        ignored = next(int(line.split()[1], 16) for line in file if line.startswith("SigIgn"))
    return bool(ignored >> (signal.SIGTERM - 1) & 1)


def _ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("stopped", [False, True])
def test_a_follower_ends_with_a_parent_that_is_killed(stopped: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        follower = int(parent.stdout.readline())
        _until(lambda: _asked_to_die(follower))
        if stopped:
            # It waits for a message by now, or soon; where it is stopped does not matter once it has asked.
            _until(lambda: psutil.Process(follower).status() == psutil.STATUS_SLEEPING)
            os.kill(follower, signal.SIGSTOP)
        assert not _ended(follower)
        parent.kill()
    _until(lambda: _ended(follower))
