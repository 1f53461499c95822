"""Messages over a connected pair of sockets that have no name in any directory."""

from __future__ import annotations

import socket
from typing import Generic, TypeVar

import msgspec

_LENGTH = 8
_PART = 1 << 20
Received = TypeVar("Received")

encode = msgspec.msgpack.Encoder().encode


class Channel(Generic[Received]):
    """One end. Raises OSError, EOFError included, where the other end is gone."""

    def __init__(self, end: socket.socket, received: object) -> None:
        """received: the type of the messages that come."""
        self._end = end
        self._decode = msgspec.msgpack.Decoder(received).decode

    def send(self, encoded: bytes) -> None:
        """A message, as :func:`encode` gives it."""
        self._end.sendall(len(encoded).to_bytes(_LENGTH, "little") + encoded)

    def receive(self) -> Received:
        """Wait for the next message."""
        length = int.from_bytes(self._exactly(_LENGTH), "little")
        found: Received = self._decode(self._exactly(length))
        return found

    def close(self) -> None:
        """The other end notices."""
        self._end.close()

    def _exactly(self, count: int) -> bytearray:
        data = bytearray()
        while len(data) < count:
            part = self._end.recv(min(count - len(data), _PART))
            if not part:
                raise ConnectionResetError("the other process is gone")
            data += part
        return data
