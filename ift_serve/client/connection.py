"""Addresses, credentials and when a call may be tried again."""

from __future__ import annotations

import math
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from ift_serve.client.errors import ServerError
from ift_serve.client.texts import header, utf8
from ift_serve.client.trace_context import trace_context

DEFAULT_TARGET = "127.0.0.1:50051"
_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.service_config", '{"methodConfig": [{"name": [{}], "waitForReady": false}]}'),
]
_ADAPTER_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:@|$)")
_ADAPTER_KEYS = ("x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite")
"""Where endpoint pickers of Kubernetes' gateways look for the model, which to them is the adapter, and its old name."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the server is and how to prove who one is. The token never appears in a repr."""

    target: str = DEFAULT_TARGET
    token: str | None = None
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    more_metadata: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        utf8("target", self.target)
        utf8("server_name", self.server_name or "")
        header("token", self.token or "")
        for name, value in self.more_metadata:
            header(name, value)

    def __repr__(self) -> str:
        return f"{self.target}{', TLS' if self.credentials() else ''}{', token' if self.token else ''}"

    def credentials(self) -> grpc.ChannelCredentials | None:
        """TLS credentials; None for a plain connection."""
        if self.authority is None and self.certificate is None:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=None if self.authority is None else self.authority.read_bytes(),
            private_key=None if self.key is None else self.key.read_bytes(),
            certificate_chain=None if self.certificate is None else self.certificate.read_bytes(),
        )

    @property
    def options(self) -> list[tuple[str, int | str]]:
        """Channel options."""
        named: list[tuple[str, int | str]] = (
            [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []
        )
        return [*_OPTIONS, *named]

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call that begins now carries: who one is, and the trace that it belongs to."""
        own = (("authorization", f"Bearer {self.token}"),) if self.token else ()
        return (*own, *self.more_metadata, *trace_context())

    def metadata_for(self, request: Any, timeout: float | None) -> tuple[tuple[str, str], ...]:
        """What a call with this request carries that has so many seconds.

        Behind some proxies gRPC's own deadline is lost, and those that pick a server by adapter do not read requests.
        """
        name = _ADAPTER_NAME.match(getattr(request, "adapter", ""))
        adapter = tuple((key, name[1]) for key in _ADAPTER_KEYS) if name is not None else ()
        deadline = () if timeout is None else (("x-ift-timeout", _time_left(timeout)),)
        return (*self.metadata, *adapter, *deadline)


def _time_left(seconds: float) -> str:
    """As gRPC writes a timeout: at most eight digits and a unit."""
    milliseconds = math.ceil(1000 * min(max(0.0, seconds), 99_999_999))
    return f"{milliseconds}m" if milliseconds < 10**8 else f"{milliseconds // 1000}S"


class Attempts:
    """How often and when one call may be tried again within its timeout.

    Only where that is safe: UNAVAILABLE before anything was answered, and RESOURCE_EXHAUSTED with its delay.
    """

    def __init__(self, timeout: float | None, retries: int) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout
        self._left = retries
        self._delay = 0.1

    def remaining(self) -> float | None:
        """Seconds left for the call."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def pause_after(self, error: ServerError, *, answered: bool = False) -> float:
        """Seconds to wait before the next try. Raises the error where there is none."""
        try:
            pause = None if answered else self._pause(error)
            if pause is None:
                raise error
        finally:
            del error  # its traceback holds this frame: with a name here the request would wait for the collector
        self._left -= 1
        self._delay = min(2 * self._delay, 5.0)
        return pause

    def _pause(self, error: ServerError) -> float | None:
        if self._left <= 0 or error.code not in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"):
            return None
        if error.code == "RESOURCE_EXHAUSTED" and error.retry_after is None:
            return None
        pause = self._delay if error.retry_after is None else error.retry_after
        pause *= 1 + random.random() / 4
        remaining = self.remaining()
        return None if remaining is not None and pause >= remaining else pause
