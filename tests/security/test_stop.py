"""The end of the process: within its time whatever the loop is doing, at once when asked twice.

The engine's process serves the model in one of the tests. In the others it is one that computes without torch: it ends
in the same way, and begins in a fraction of the time.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from ift_serve.engines.process import WORKER_MODULE

BLOCKED = """
    import ctypes, sys, time
    from ift_serve.engine.config import EngineConfig
    from ift_serve.frontend.engine_client import EngineClient
    from ift_serve.server import app, run
    from ift_serve.server.config import ServerConfig

    def keep_the_lock():
        # A mutex that is taken twice, by calls that keep the interpreter's lock: no thread of Python runs any more.
        library, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(128)
        print("locked", flush=True)
        library.pthread_mutex_lock(mutex), library.pthread_mutex_lock(mutex)

    kind = sys.argv[2]
    blockers = {
        "python": lambda: [None for _ in iter(int, 1)],
        "sleeping": lambda: time.sleep(3600),
        "native": keep_the_lock,
        "not": lambda: None,
    }

    def ready(server):
        print("ready", server.engine.engine_pid, flush=True)
        blockers[kind]()

    run._GRACE = float(sys.argv[3])
    open_engine = lambda config: EngineClient(config, sys.argv[4])
    engine = EngineConfig(model=sys.argv[1], dtype="float32", total_blocks=64, threads=1)
    run.serve(ServerConfig(engine=engine, port=0, metrics_port=None, drain_timeout=1.0), open_engine, ready)
"""


def _start(
    tmp_path: Path,
    model: Path,
    kind: str,
    grace: float = 120.0,
    prefix: tuple[str, ...] = (),
    worker: str = "tests.support.oracle_worker",
) -> tuple[subprocess.Popen[str], int]:
    """A server, and its engine's process id.

    ``grace``: seconds that ending may take; ``prefix`` runs the command; ``worker``: the engine's module.
    """
    script = tmp_path / "blocked.py"
    script.write_text(textwrap.dedent(BLOCKED))
    process = subprocess.Popen(
        [*prefix, sys.executable, str(script), str(model), kind, str(grace), worker],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert process.stdout is not None and process.stderr is not None
    ready = process.stdout.readline().split()
    assert ready and ready[0] == "ready", process.stderr.read()
    return process, int(ready[1])


def _wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    line = next((line for line in process.stderr if text in line), "")
    assert line, f"no line of the log says {text!r}"
    return line


def _wait_for_end_of(pid: int) -> None:
    deadline = time.monotonic() + 120
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the engine outlived its server"
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["python", "sleeping"])
def test_a_blocked_loop_does_not_keep_the_process(tmp_path: Path, model_directory: Path, kind: str) -> None:
    process, engine = _start(tmp_path, model_directory, kind, grace=1.0)
    assert "blocked.py" in _wait_for_line(process, "the event loop has been blocked")
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 1 and "the end did not come within" in log
    _wait_for_end_of(engine)


def test_a_second_signal_ends_at_once(tmp_path: Path, model_directory: Path) -> None:
    process, engine = _start(tmp_path, model_directory, "sleeping")
    process.send_signal(signal.SIGINT)
    _wait_for_line(process, "asked to end")
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 1 and "a second signal" in log
    _wait_for_end_of(engine)


def test_one_signal_ends_an_idle_server_in_order(tmp_path: Path, model_directory: Path) -> None:
    process, engine = _start(tmp_path, model_directory, "not", worker=WORKER_MODULE)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 0 and '"stopped"' in log
    assert not psutil.pid_exists(engine)


def _wait_until_locked(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "locked"
    time.sleep(0.2)  # the two calls behind that line take microseconds


def test_native_code_that_keeps_the_lock_does_not_keep_the_process(tmp_path: Path, model_directory: Path) -> None:
    process, engine = _start(tmp_path, model_directory, "native", grace=1.0)
    _wait_until_locked(process)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL and "does not end" in log
    assert time.monotonic() - begun > 2, "a drain of a second and a grace of one had been given"
    _wait_for_end_of(engine)


def test_a_second_signal_ends_native_code_that_keeps_the_lock_at_once(tmp_path: Path, model_directory: Path) -> None:
    process, engine = _start(tmp_path, model_directory, "native", grace=600.0)
    _wait_until_locked(process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    _wait_for_end_of(engine)


def test_the_first_process_of_a_container_ends_as_well(tmp_path: Path, model_directory: Path) -> None:
    prefix = ("unshare", "--pid", "--fork", "--mount-proc")
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to make a namespace of processes (root)")
    outer, _ = _start(tmp_path, model_directory, "native", grace=600.0, prefix=prefix)
    _wait_until_locked(outer)
    (server,) = psutil.Process(outer.pid).children()
    server.send_signal(signal.SIGTERM)
    server.send_signal(signal.SIGINT)
    outer.communicate(timeout=120)
    assert outer.returncode == signal.SIGUSR1 and not server.is_running()


def test_signals_are_heard_without_the_guardian(tmp_path: Path, model_directory: Path) -> None:
    process, engine = _start(tmp_path, model_directory, "not")
    (guardian,) = [c for c in psutil.Process(process.pid).children() if any("guardian.py" in a for a in c.cmdline())]
    guardian.kill()
    _wait_for_end_of(guardian.pid)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 0 and '"stopped"' in log
    assert not psutil.pid_exists(engine)
