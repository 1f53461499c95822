"""Connections of one address: those past its share are closed, so that others find room.

gRPC bounds the connections of all addresses together and has no say for one of them. The sockets are this process's,
so they are looked at here: a few times a second, by number of the descriptor, those of the listening port by their
peer's address. A look costs a microsecond or two a descriptor.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from ift_serve.sharing.peers import Peers, named, parse_address

_log = logging.getLogger(__name__)
_INTERVAL = 0.2
"""Seconds between looks: as long may one address hold more than its share."""
_DESCRIPTORS = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
_GOAWAY = (
    b"ift-serve: too many connections are open from this address; use fewer, with more calls on each, "
    b"or have the operator raise --max-connections-per-address"
)
_FRAME = len(_GOAWAY + bytes(8)).to_bytes(3, "big") + b"\x07\x00" + bytes(4) + bytes(4) + b"\x00\x00\x00\x0b" + _GOAWAY
"""An HTTP/2 GOAWAY frame, ENHANCE_YOUR_CALM, with the reason for people (RFC 9113, section 6.8)."""


@dataclass(frozen=True, slots=True)
class _Connection:
    descriptor: int
    caller: str
    order: int


class ConnectionShares:
    """Closes the newest connections of an address that has more than ``limit``; older ones go on.

    port: the listening one. Connections from trusted proxies and over unix sockets are not counted. ``on_closed`` is
    called, in the thread that looks, with the number of connections closed. ``encrypted``: whether words to the peer
    would have to be, so that none are sent.
    """

    def __init__(
        self, port: int, limit: int, peers: Peers, on_closed: Callable[[int], object], *, encrypted: bool
    ) -> None:
        self._port, self._limit, self._peers = port, limit, peers
        self._on_closed = on_closed
        self._encrypted = encrypted
        self._known: dict[int, _Connection | None] = {}
        """By inode, which no other socket has meanwhile; None for what is no connection of a counted address."""
        self._numbers = count()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="connection shares", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            if closed := self.look():
                self._on_closed(closed)

    def look(self) -> int:
        """Close what is past the shares; returns how many connections that were."""
        self._known = {inode: self._seen(inode, number) for number, inode in _sockets()}
        by_caller: dict[str, list[tuple[int, _Connection]]] = defaultdict(list)
        for inode, connection in self._known.items():
            if connection is not None:
                by_caller[connection.caller].append((inode, connection))
        closed = 0
        for caller, held in by_caller.items():
            held.sort(key=lambda item: item[1].order)
            gone = sum(self._end(inode, connection) for inode, connection in held[self._limit :])
            if gone:
                _log.warning("connections past an address's share are closed", extra={"client": caller, "closed": gone})
            closed += gone
        return closed

    def _seen(self, inode: int, descriptor: int) -> _Connection | None:
        if inode in self._known:
            return self._known[inode]
        with contextlib.suppress(OSError), _duplicate(descriptor, inode) as found:
            caller = self._caller(found)
            return None if caller is None else _Connection(descriptor, caller, next(self._numbers))
        return None

    def _caller(self, found: socket.socket) -> str | None:
        if found.family not in (socket.AF_INET, socket.AF_INET6) or found.getsockname()[1] != self._port:
            return None
        address = parse_address(str(found.getpeername()[0]))  # OSError for the listening socket itself
        return None if address is None or self._peers.is_proxy(address) else named(address)

    def _end(self, inode: int, connection: _Connection) -> bool:
        """Say why, and shut the connection: gRPC then closes its descriptor. False where it was closed already."""
        try:
            with _duplicate(connection.descriptor, inode) as found:
                if not self._encrypted:
                    with contextlib.suppress(BlockingIOError):
                        found.send(_FRAME, socket.MSG_DONTWAIT)
                found.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
        self._known[inode] = None
        return True


def _sockets() -> list[tuple[int, int]]:
    """Descriptor and inode of every socket of this process."""
    found = []
    for name in os.listdir(_DESCRIPTORS):
        with contextlib.suppress(OSError):  # closed since it was listed
            about = os.fstat(int(name))
            if stat.S_ISSOCK(about.st_mode):
                found.append((int(name), about.st_ino))
    return found


@contextlib.contextmanager
def _duplicate(descriptor: int, inode: int) -> Iterator[socket.socket]:
    """The socket behind a descriptor, by one of our own: another thread may close or reuse the first at any time."""
    found = socket.socket(fileno=os.dup(descriptor))
    try:
        if os.fstat(found.fileno()).st_ino != inode:
            raise OSError("another socket has the descriptor now")
        yield found
    finally:
        found.close()
