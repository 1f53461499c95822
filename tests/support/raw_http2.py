"""HTTP/2 by hand, for peers that do what no gRPC library does: open a call and read nothing, stop in the middle."""

from __future__ import annotations

import socket
import struct

_SETTINGS, _HEADERS, _DATA = 4, 1, 0
_END_HEADERS = 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113, section 4.1."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def settings(**values: int) -> bytes:
    """The connection's preface. ``window``: bytes that the server may send in a stream; ``table``: of headers."""
    numbers = {"table": 1, "window": 4}
    payload = b"".join(struct.pack(">HI", numbers[name], value) for name, value in values.items())
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(_SETTINGS, 0, 0, payload)


def headers(stream: int, method: str, extra: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """The headers of a gRPC call, as literals without an index (RFC 7541, section 6.2.2)."""
    pairs = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", method.encode()),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *extra,
    )
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in pairs)
    return frame(_HEADERS, _END_HEADERS, stream, block)


def message(stream: int, body: bytes, *, claimed: int | None = None, end: bool = False) -> bytes:
    """A gRPC message. ``claimed``: the length that it says it has, if not its own."""
    length = len(body) if claimed is None else claimed
    return frame(_DATA, int(end), stream, b"\x00" + length.to_bytes(4, "big") + body)


def _text(value: bytes) -> bytes:
    length = len(value)
    if length < 127:
        return bytes((length,)) + value
    prefix, rest = bytes((127,)), length - 127
    while rest >= 128:
        prefix += bytes((rest % 128 + 128,))
        rest //= 128
    return prefix + bytes((rest,)) + value


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    """A connection that has said nothing yet."""
    return socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))
