"""The HTTP port that metrics are read from: bounded, so that slow or many readers cost the server nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

_READERS = 8
_PATIENCE = 5.0
"""Seconds a reader has in all: for sending its request and taking the answer."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not logged."""


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a reader, at most ``_READERS``, half of them of one address; who comes past that is told so."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self._lock = threading.Lock()
        self._since: dict[Any, tuple[float, str]] = {}
        """When each reader that is being answered came, and from which address."""
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # The base class asks the name service for this host's name, which may take seconds.
        socket_address = self.server_address
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(socket_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            here = sum(address == client_address[0] for _, address in self._since.values())
            is_full = len(self._since) >= _READERS or here >= _READERS // 2
            if not is_full:
                self._since[request] = time.monotonic(), client_address[0]
        if is_full:
            with contextlib.suppress(OSError):
                request.settimeout(0)
                request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._since.pop(request, None)

    def service_actions(self) -> None:
        """Cut off readers whose time is over, however busily they send. Called twice a second."""
        with self._lock:
            late = [request for request, (since, _) in self._since.items() if time.monotonic() - since > _PATIENCE]
            for request in late:  # its place is free before it hears that it has none
                del self._since[request]
        for request in late:
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away or was too slow."""


class MetricsPort:
    """Answers scrapes of one registry in threads. Listens from the start; ``serve`` begins to answer.

    Raises OSError where the port cannot be had.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server_class = type("_Server", (_Server,), {"address_family": family})
        self._server: _Server = server_class((host.strip("[]"), port), _Handler)
        self._server.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        """The real one."""
        return int(self._server.server_port)

    def serve(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
