"""A network of the server's own, whose packets can be lost: a namespace, and a link to it.

By ``tc netem`` where the kernel has it; else every packet goes through this process, which drops some of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Protocol

_HERE, _THERE, _BITS = "10.213.7.1", "10.213.7.2", "24"
_SET_INTERFACE, _PLAIN_TUN = 0x400454CA, 0x0001 | 0x1000
_LARGEST = 1 << 16


class Network(Protocol):
    """``address``: of the server as its callers see it. ``kind``: how packets are lost, or why they are not."""

    kind: str
    address: str

    def command(self, command: list[str]) -> list[str]:
        """The same, run where the server is."""

    def lose(self, share: float) -> bool:
        """Lose that share of the packets from now on; False where that cannot be done."""


class Loopback:
    """No network of its own: no packet is lost."""

    address = "127.0.0.1"

    def __init__(self, why: str) -> None:
        self.kind = f"not done: {why}"

    def command(self, command: list[str]) -> list[str]:
        """As it is."""
        return command

    def lose(self, share: float) -> bool:
        """It cannot."""
        return False


class _Namespace:
    address = _THERE

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, command: list[str]) -> list[str]:
        """In the namespace."""
        return ["ip", "netns", "exec", self.name, *command]


class Netem(_Namespace):
    """A pair of interfaces, with the kernel's own losses."""

    kind = "tc netem"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        _ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-in", "netns", name)
        try:
            _run("tc", "qdisc", "add", "dev", name, "root", "netem", "loss", "0%")
        except OSError:
            _ip("link", "del", name)
            raise
        _configure(name, name, f"{name}-in")

    def lose(self, share: float) -> bool:
        _run("tc", "qdisc", "change", "dev", self.name, "root", "netem", "loss", f"{100 * share:g}%")
        return True


class Relay(_Namespace):
    """Two interfaces of this process, which carries the packets between them."""

    kind = "packets relayed by this program (the kernel has no netem)"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._share, self._rng = 0.0, random.Random(0)
        self._here, self._there = _tun(name), _tun(f"{name}-in")
        _ip("link", "set", f"{name}-in", "netns", name)
        _configure(name, name, f"{name}-in")
        for source, target in ((self._here, self._there), (self._there, self._here)):
            threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def lose(self, share: float) -> bool:
        self._share = share
        return True

    def _carry(self, source: int, target: int) -> None:
        while True:
            select.select([source], [], [])
            try:
                packet = os.read(source, _LARGEST)
                if self._rng.random() >= self._share:
                    os.write(target, packet)
            except BlockingIOError:
                continue
            except OSError:
                return  # the interface is gone


def _tun(name: str) -> int:
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(handle, _SET_INTERFACE, struct.pack("16sH22x", name.encode(), _PLAIN_TUN))
    return handle


def _configure(namespace: str, here: str, there: str) -> None:
    _ip("addr", "add", f"{_HERE}/{_BITS}", "dev", here)
    _ip("link", "set", here, "up")
    for command in (("addr", "add", f"{_THERE}/{_BITS}", "dev", there), ("link", "set", there, "up")):
        _ip("-n", namespace, *command)
    _ip("-n", namespace, "link", "set", "lo", "up")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command[:4])}: {done.stderr.strip() or done.returncode}")


def _ip(*command: str) -> None:
    _run("ip", *command)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """The best that this machine lets us have; taken down at the end."""
    name = f"ift-{os.getpid() % 100_000}"
    if not sys.platform.startswith("linux") or os.geteuid():
        yield Loopback("a network namespace needs root on Linux")
        return
    try:
        _ip("netns", "add", name)
    except OSError as error:
        yield Loopback(str(error))
        return
    try:
        yield _link(name)
    finally:
        with contextlib.suppress(OSError):
            _ip("netns", "del", name)
        with contextlib.suppress(OSError):
            _ip("link", "del", name)


def _link(name: str) -> Network:
    why = []
    for kind in (Netem, Relay):
        try:
            return kind(name)
        except OSError as error:
            why.append(str(error))
    return Loopback("; ".join(why))
