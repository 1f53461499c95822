"""Configuration of the gateway process."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ift_serve.system.addresses import is_loopback

Port = Annotated[int, Field(ge=0, le=65535)]
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


class GatewayConfig(BaseModel):
    """Where the gateway listens, which server it asks, and what one caller may take."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    server: str = Field(default="127.0.0.1:50051", description="host:port of the server")
    authority: Path | None = Field(default=None, description="certificate authority of the server, for TLS to it")
    certificate: Path | None = Field(default=None, description="own certificate, for mutual TLS to the server")
    key: Path | None = None
    host: str = "127.0.0.1"
    port: Port = Field(default=8000, description="0: a free one")
    tls_certificate: Path | None = Field(default=None, description="certificate that HTTP callers see")
    tls_key: Path | None = None
    allow_insecure: bool = Field(default=False, description="listen beyond this machine without TLS")
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="names by which browsers reach it; none: of a loopback address this machine's, else all"
    )
    cors_origins: tuple[str, ...] = Field(default=(), description="origins of web pages that may call; none: no others")
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), description="networks of proxies whose x-forwarded-for is believed"
    )
    body_bytes: int = Field(default=2**20, ge=1024, le=2**26, description="bytes of a request's body")
    answer_entries: int = Field(
        default=2**18,
        ge=1024,
        description="tokens of all choices, each with its alternatives, of an answer in one piece",
    )
    answer_memory: int = Field(
        default=2**28,
        ge=2**20,
        description="bytes of unfinished answers in one piece, half of them one caller's",
    )
    prompts: int = Field(default=32, ge=1, description="prompts of one completions request")
    max_calls: int = Field(
        default=256, ge=1, description="requests in flight, half of them one caller's; past it status 429"
    )
    max_connections: int = Field(default=1024, ge=2, description="open connections, half of them of one address")
    timeout: float = Field(default=600.0, gt=0, description="seconds for a request; callers may ask for less")
    read_timeout: float = Field(default=30.0, gt=0, description="seconds for a request's head, and for its body")
    write_timeout: float = Field(default=60.0, gt=0, description="seconds that an answer may be left unread")
    drain_timeout: float = Field(default=30.0, ge=0, description="seconds that requests in flight get on SIGTERM")
    drain_notice: float = Field(
        default=0.0, ge=0, description="seconds between an unhealthy state and the end of listening"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    playground: bool = Field(default=False, description="serve the playground's page at /")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of hosts that requests may be for; empty: any.

        On a loopback address any other name is that of a page which leads a browser here (DNS rebinding).
        """
        if self.allowed_hosts or not is_loopback(self.host):
            return self.allowed_hosts
        return tuple(dict.fromkeys((*_LOCAL_NAMES, self.host)))

    @model_validator(mode="after")
    def _check(self) -> GatewayConfig:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key: give both or neither")
        if self.key is not None and self.certificate is None:
            raise ValueError("key: needs certificate")
        if self.tls_certificate is None and not is_loopback(self.host) and not self.allow_insecure:
            raise ValueError(
                f"host: {self.host} is reachable from other machines and there is no TLS; "
                "set tls_certificate and tls_key, or allow_insecure"
            )
        for origin in self.cors_origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query:
                raise ValueError(f"cors_origins: {origin!r} is not an origin, such as https://example.org")
        return self
