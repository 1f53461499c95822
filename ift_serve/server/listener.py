"""The gRPC port: address, encryption, and limits of connections, streams, messages and metadata."""

from __future__ import annotations

import grpc

from ift_serve.server.body import RECEIVE_FACTOR
from ift_serve.server.certificates import Certificates
from ift_serve.server.config import ServerConfig

_HANDSHAKE_MS, _IDLE_MS, _METADATA_BYTES = 10_000, 600_000, 16 * 1024


class ListenError(OSError):
    """A port that cannot be listened on; the message names the option."""


def options(config: ServerConfig) -> list[tuple[str, int]]:
    """gRPC's channel arguments of the server."""
    return [
        ("grpc.max_receive_message_length", RECEIVE_FACTOR * config.limits.request_bytes),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        ("grpc.max_allowed_incoming_connections", config.max_connections),
        ("grpc.max_concurrent_streams", config.max_streams),
        # Who connects and says nothing, or has nothing more to say, makes room for others.
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.so_reuseport", 0),
        # Clients may ping while a long answer is computed: without this they are sent away with too_many_pings.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


def listen(server: grpc.aio.Server, config: ServerConfig) -> int:
    """Add the port; returns the real one. Raises ListenError, and ValueError for files that are no certificates."""
    address = config.host if config.host.startswith("unix:") else f"{config.host}:{config.port}"
    try:
        if config.tls_certificate is None or config.tls_key is None:
            return server.add_insecure_port(address)
        files = Certificates(config.tls_certificate, config.tls_key, config.tls_client_authority)
        return server.add_secure_port(address, files.credentials())
    except RuntimeError as error:
        raise ListenError(f"port: cannot listen on {address}: {_reason(config)}") from error


def _reason(config: ServerConfig) -> str:
    if config.host.startswith("unix:"):
        return "the path cannot be made; choose another with --host unix:PATH"
    return "it is in use or not an address of this machine; choose another with --port (0: a free one) or --host"
