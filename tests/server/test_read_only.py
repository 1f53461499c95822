"""Servers where nothing or little can be written, and where memory and processors are limited. Needs root and Linux."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ift_serve.client import Client
from ift_serve.system.machine import physical_memory

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join(str(ROOT / part) for part in ("", "kernels", "training"))
READ_ONLY = "mount -o remount,ro,bind / && "
HOMELESS = "mount -t tmpfs -o mode=1777 tmpfs /tmp && " + READ_ONLY
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
SERVE = "from ift_serve.cli import main; main()"


def _needs(*programs: str) -> None:
    """Skip where a namespace of mounts cannot be had."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True)
    if done.returncode:
        pytest.skip("needs the right to make a namespace of mounts (root)")


def _open_ways() -> str:
    """Commands that make this interpreter reachable for every user, within the namespace."""
    prefix = Path(sys.base_prefix)
    closed = next((p for p in reversed(prefix.parents) if not p.stat().st_mode & 0o001), None)
    if closed is None:
        return ""
    spare = "/mnt"
    q = shlex.quote
    return (
        f"mount --bind {q(str(prefix))} {spare} && mount -t tmpfs -o mode=755 tmpfs {q(str(closed))} && "
        f"mkdir -p {q(str(prefix))} && mount --bind {spare} {q(str(prefix))} && "
    )


@contextlib.contextmanager
def served(
    shell: str, prefix: tuple[str, ...], *options: str, log: list[str] | None = None, **variables: str
) -> Iterator[str]:
    """The address of a server that starts after the shell's commands, in mounts and an environment of its own.

    What it said is added to ``log`` at the end. ``variables`` are added to its environment.
    """
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": PATHS, "HOME": "/nonexistent"} | variables
    serve = (sys.executable, "-B", "-c", SERVE, "serve", "--port", "0", "--metrics-port", "-1")
    command = shlex.join(("exec", *prefix, *serve, *options))
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"{_open_ways()}{shell}{command}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd="/",
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("ift-serve ready on "):
            process.kill()
            pytest.fail(line + process.communicate()[1][-3000:])
        yield line.removeprefix("ift-serve ready on ").split(",")[0]
    finally:
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
        if log is not None:
            log += said.splitlines()


def _ask(address: str) -> str:
    with Client(address, timeout=120) as client:
        return client.generate("What is 23 + 14?", temperature=0.0, max_new_tokens=8).text


@pytest.fixture(scope="module")
def installed_kernels() -> Iterator[Path]:
    """Every kernel, compiled as at an installation: outside what the tests mount anew, readable for every user.

    Compiled where the other tests find them, which takes what it takes once; to the folder the command adds no more
    than that all are there.
    """
    from ift_kernels.cpu_simd.storage import kept_code

    def compile_kernels(*options: str) -> None:
        subprocess.run(
            [sys.executable, "-c", SERVE, "compile", *options],
            check=True,
            capture_output=True,
            env=os.environ | {"PYTHONPATH": PATHS},
        )

    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ift-serve-kernels-") as folder:
        Path(folder).chmod(0o755)
        if (kept := kept_code()) is not None:
            compile_kernels()
            for file in kept.glob("*.nb[ci]"):
                shutil.copy(file, folder)
        compile_kernels("--cache", folder)
        yield Path(folder)


@pytest.mark.timeout(600)
def test_kernels_of_an_installation_are_used_where_nothing_can_be_written(installed_kernels: Path) -> None:
    _needs("unshare", "setpriv", "mount")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in installed_kernels.iterdir())
    log: list[str] = []
    with served(HOMELESS, NOBODY, "--cache-mib", "32", log=log, IFT_KERNELS=str(installed_kernels)) as address:
        assert _ask(address)
        with Client(address, timeout=120) as client:
            assert client.generate("the fox", temperature=0.7, top_p=0.9, n=3, max_new_tokens=4).candidates
            assert client.score_text("the quick brown fox").scores[0].token_count > 1
    assert any('"ready"' in line for line in log)
    assert not [line for line in log if "compil" in line], "a kernel was compiled, or the server meant to"
    assert sorted((path.name, path.stat().st_mtime_ns) for path in installed_kernels.iterdir()) == before


@pytest.mark.timeout(400)
def test_a_server_that_can_keep_nothing_anywhere_answers_as_one_that_can(installed_kernels: Path) -> None:
    """Its kernels are compiled for itself. A user without a home, who has /tmp, is the next test's."""
    _needs("unshare", "setpriv", "mount")
    nowhere = "mount -t tmpfs -o ro tmpfs /tmp && mount -t tmpfs tmpfs /dev/shm && " + READ_ONLY
    answers, log = [], list[str]()
    for kernels in ("/nonexistent", str(installed_kernels)):
        with served(nowhere, (), "--cache-mib", "32", log=log, IFT_KERNELS=kernels) as address:
            answers.append(_ask(address))
    assert answers[0] == answers[1] != ""
    assert not [line for line in log if '"compiling' in line], "processes compiled beside it what it cannot find"


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group below this process's, of either version, limited to so many bytes; skips where it cannot be."""
    from ift_serve.system.machine import _GROUPS, _MOUNTS, _folders

    parent = next(iter(_folders("memory", _GROUPS, _MOUNTS)), None)
    if parent is None:
        pytest.skip("no control groups for memory are mounted")
    group = parent / f"ift-serve-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        file = next(f for f in (group / "memory.max", group / "memory.limit_in_bytes") if f.exists())
        file.write_text(str(limit))
    except (OSError, StopIteration) as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"a control group cannot be made: {error}")
    try:
        yield group
    finally:
        deadline = time.monotonic() + 60
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)  # the last of its processes is ending
        group.rmdir()


def _most_used(group: Path) -> int:
    """Bytes that the group held at most, in version 1 or 2; those it holds now where the kernel keeps no record."""
    names = ("memory.max_usage_in_bytes", "memory.peak", "memory.current")
    return int(next(group / name for name in names if (group / name).exists()).read_text())


def _killed_for_memory(group: Path) -> int:
    """Processes of the group that the kernel has ended."""
    file = next(f for f in (group / "memory.oom_control", group / "memory.events") if f.exists())
    return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])


@pytest.mark.timeout(400)
def test_a_whole_server_in_a_tight_group_for_a_user_without_a_home_on_a_read_only_system() -> None:
    """The embedded model and torch take some 0.7 GiB; cache and adapters have to do with what is left of one."""
    _needs("unshare", "setpriv", "mount")
    limit = 2**30
    with memory_group(limit) as group:
        join = f"echo $$ > {shlex.quote(str(group / 'cgroup.procs'))} && "
        log: list[str] = []
        with served(join + HOMELESS, NOBODY, log=log) as address:
            answer = _ask(address)
            with Client(address, timeout=120) as client, ThreadPoolExecutor(16) as callers:
                asked = [callers.submit(client.generate, "Say. " * 100, max_new_tokens=64) for _ in range(64)]
                assert all(one.result().candidates for one in asked)
                load = client.model().load
                assert load["engine_restarts"] == 0 and load["total_blocks"] > 0
            assert _ask(address) == answer
            assert not _killed_for_memory(group)
            assert 0.25 * limit < _most_used(group) <= limit, "the server was not in the group, or the limit is none"
        assert not [line for line in log if '"error"' in line]


def _in_group(group: Path, program: str) -> str:
    join = f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid())); "
    done = subprocess.run(
        [sys.executable, "-c", join + program], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": PATHS}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_limits_of_a_real_group_are_found() -> None:
    limit = 700 * 2**20
    with memory_group(limit) as outer:
        inner = outer / "inner"
        inner.mkdir()
        try:
            program = (
                "from ift_serve.system.machine import *; held = bytearray(64 * 2**20); "
                "print(memory_limit(), available_memory())"
            )
            for group in (outer, inner):
                found, available = map(int, _in_group(group, program).split())
                assert found == limit, "a group has the limits of those around it"
                assert available <= limit - 64 * 2**20
            findings = json.loads(_in_group(inner, f"import sys; sys.argv[1:] = ['doctor', '--json']; {SERVE}"))
            shown = {finding["name"]: finding["value"] for finding in findings}
            assert shown["memory limit"] == "0.7 GiB"
        finally:
            inner.rmdir()
    with memory_group(physical_memory() * 8) as group:
        found = int(_in_group(group, "from ift_serve.system.machine import *; print(memory_limit())"))
        assert found <= physical_memory(), "a limit above the machine's memory is none"
