"""A gateway until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence

import uvicorn
from starlette.routing import BaseRoute

from ift_serve.gateway.application import application
from ift_serve.gateway.certificates import ChangingCertificate
from ift_serve.gateway.config import GatewayConfig
from ift_serve.gateway.connections import ConnectionBounds
from ift_serve.gateway.handlers import Gateway
from ift_serve.sharing.peers import Peers
from ift_serve.sharing.places import Places
from ift_serve.system.descriptors import allow_descriptors
from ift_serve.system.logs import configure_logs

_KEEP_ALIVE = 30
"""Seconds that a connection may rest between two requests."""


class ListenError(OSError):
    """A port that cannot be listened on; the message names the option."""


def _nothing(server: object) -> None:
    """What is told where nobody listens."""


_Ready = Callable[["GatewayServer"], object]


class GatewayServer(uvicorn.Server):
    """Runs one gateway. ``ready`` is called once requests are taken; ``stop`` is for the event loop only."""

    def __init__(
        self,
        config: GatewayConfig,
        pages: Sequence[BaseRoute] = (),
        ready: Callable[[GatewayServer], object] = _nothing,
    ) -> None:
        self.gateway = Gateway(config)
        self._ready = ready
        self._certificate: ChangingCertificate | None = None
        if config.tls_certificate is not None and config.tls_key is not None:
            self._certificate = ChangingCertificate(config.tls_certificate, config.tls_key)
        self.socket = listen(config.host, config.port)
        bounds = ConnectionBounds(Places(config.max_connections), Peers(config.trusted_proxies), config.read_timeout)
        super().__init__(
            uvicorn.Config(
                application(self.gateway, pages),
                http=bounds.protocol(),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=max(1, round(config.drain_timeout)),
                ssl_certfile=config.tls_certificate,
                ssl_keyfile=config.tls_key,
            )
        )

    @property
    def port(self) -> int:
        """The real one."""
        return int(self.socket.getsockname()[1])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first signal drains, the second ends what is in flight. SIGHUP, which asks servers to read files again,
        ends nothing: changed files are noticed without it."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(AttributeError, NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(signal.SIGHUP, lambda: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # not in threads
                loop.add_signal_handler(number, self.stop)
        yield

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn, which asks ten times a second whether to end."""
        if self._certificate is not None and self.config.ssl is not None:
            self._certificate.follow(self.config.ssl)
        return await super().on_tick(counter)

    def stop(self) -> None:
        """Take no more requests, and end once those in flight are answered; at the second call, at once."""
        if self.gateway.is_draining:
            self.force_exit = self.should_exit = True
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            return
        self.gateway.is_draining = True
        asyncio.get_running_loop().call_later(self.gateway.config.drain_notice, self._exit)

    def _exit(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell."""
        await super().startup(sockets)
        if self.started:
            self._ready(self)

    async def run_until_stopped(self) -> None:
        """Serve."""
        try:
            await self.serve(sockets=[self.socket])
        finally:
            await self.gateway.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket of the address. Raises ListenError."""
    try:
        family = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0][0]
        found = socket.create_server((host.strip("[]"), port), family=family, backlog=1024)
    except OSError as error:
        problem = "it is in use or not an address of this machine; choose another with --port (0: a free one) or --host"
        raise ListenError(f"port: cannot listen on {host}:{port}: {problem}") from error
    return found


def announce(server: GatewayServer) -> None:
    """The line that tells people and scripts where the gateway listens."""
    config = server.gateway.config
    scheme = "https" if config.tls_certificate else "http"
    page = f", playground on {scheme}://{config.host}:{server.port}/" if config.playground else ""
    print(f"gateway ready on {scheme}://{config.host}:{server.port}/v1, server {config.server}{page}", flush=True)


def run_gateway(config: GatewayConfig, pages: Sequence[BaseRoute] = (), ready: _Ready = announce) -> None:
    """Serve until SIGTERM or SIGINT. Raises ListenError, and OSError for files that are no certificates."""
    configure_logs(config.log_level)
    uvicorns = logging.getLogger("uvicorn")
    uvicorns.handlers[:], uvicorns.propagate = logging.getLogger("ift_serve").handlers, False
    uvicorns.setLevel(logging.ERROR)
    allow_descriptors(config.max_connections, "--max-connections")
    asyncio.run(_run(config, pages, ready))


async def _run(config: GatewayConfig, pages: Sequence[BaseRoute], ready: _Ready) -> None:
    await GatewayServer(config, pages, ready).run_until_stopped()  # gRPC belongs to the loop that it is made in
