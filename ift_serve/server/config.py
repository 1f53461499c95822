"""Configuration of the server process."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ift_serve.engine.config import EngineConfig
from ift_serve.system.addresses import is_loopback

Port = Annotated[int, Field(ge=0, le=65535)]


class Limits(BaseModel):
    """What one request may ask for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_bytes: int = Field(default=2**20, ge=1024, le=2**26, description="bytes of a request message")
    """Parsing holds up other callers: a message of nothing but empty parts takes some 50 ms a mebibyte."""
    candidates: int = Field(default=32, ge=1)
    stop_strings: int = Field(default=16, ge=0)
    stop_bytes: int = Field(default=256, ge=1)
    stop_ids: int = Field(default=64, ge=0)
    bias_entries: int = Field(default=1024, ge=0)
    continuations: int = Field(default=1024, ge=1)
    answer_entries: int = Field(
        default=2**18, ge=1024, description="tokens of all candidates, each with its alternatives; tokens scored"
    )
    stream_entries: int = Field(default=2**20, ge=1024, description="the same of an answer that is streamed")
    messages: int = Field(default=1024, ge=1, description="messages of a conversation")
    parts: int = Field(default=4096, ge=1, description="parts of all messages of a conversation")
    text_bytes: int = Field(default=2**20, ge=1024, description="bytes of text that are tokenised as one")
    max_priority: int = Field(default=10, ge=0, le=100, description="of callers of role generate; admins: 100")
    thought_tokens: int = Field(default=32768, ge=0, description="of one thought; requests for more get this many")
    width: int = Field(default=32, ge=2, le=256, description="sequences that a strategy compares; more become so many")
    total_tokens: int = Field(
        default=2**20, ge=1, description="of all sequences of a request, hidden ones too; more become so many"
    )
    batch_bytes: int = Field(default=2**23, ge=1024, description="bytes of all texts tokenised for one request")


class ServerConfig(BaseModel):
    """Where the server listens, whom it trusts, and the engine behind it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    engine: EngineConfig
    host: str = "127.0.0.1"
    port: Port = Field(default=50051, description="0: a free one")
    metrics_host: str = "127.0.0.1"
    metrics_port: Port | None = Field(default=9464, description="0: a free one; None: no metrics")
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_authority: Path | None = Field(default=None, description="clients must present a certificate of it")
    tokens_file: Path | None = Field(default=None, description="lines of `role name token`; roles generate, admin")
    audit_log: Path | None = Field(
        default=None, description="file that gets a line of JSON for each call that needs the role admin"
    )
    allow_insecure: bool = Field(default=False, description="listen beyond this machine without TLS")
    adapters: dict[str, Path] = Field(default_factory=dict, description="loaded at the start, by name")
    adapter_roots: list[Path] = Field(default_factory=list, description="the only places that clients may load from")
    adapter_folder: Path | None = Field(default=None, description="every directory in it is kept loaded")
    adapter_folder_interval: float = Field(default=2.0, gt=0, description="seconds between looks into it")
    drain_timeout: float = Field(default=30.0, ge=0, description="seconds that calls in flight get on SIGTERM")
    drain_notice: float = Field(default=0.0, ge=0, description="seconds between NOT_SERVING and refusing calls")
    start_timeout: float = Field(
        default=3600.0,
        gt=0,
        description="seconds the engine has to load the model while it gets on",
    )
    max_calls: int = Field(
        default=1024, ge=1, description="calls in flight, half of them one caller's; past it RESOURCE_EXHAUSTED"
    )
    max_admin_calls: int = Field(
        default=16, ge=1, description="adapter calls of one caller in flight beside its watches, twice as many of all"
    )
    max_connections: int = Field(default=1024, ge=1, description="open connections; past it new ones are closed")
    max_connections_per_address: int | None = Field(
        default=None, ge=1, description="of one address; past it its newest are closed; None: half of max_connections"
    )
    trusted_proxies: list[IPv4Network | IPv6Network] = Field(
        default_factory=list,
        description="networks whose connections are many callers': not bounded, and x-forwarded-for is believed",
    )
    max_streams: int = Field(default=256, ge=1, description="calls on one connection; past it they wait at the client")
    stream_idle_timeout: float = Field(default=60.0, gt=0, description="seconds that a stream may be left unread")
    max_watches: int = Field(
        default=64,
        ge=1,
        description="adapter watches of one caller; health watches and reflection streams of all, half of one address",
    )
    check_timeout: float = Field(default=10.0, gt=0, description="seconds that the checks of one response may take")
    max_evaluations: int = Field(default=1, ge=0, description="evaluations that run at once; 0: none are offered")
    sampling_defaults: Literal["model", "neutral"] = Field(
        default="model", description="what unset sampling fields stand for: the model's generation_config, or nothing"
    )
    limits: Limits = Limits()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    parse_special_tokens: bool = Field(
        default=False, description="control tokens typed into messages are control tokens, not text"
    )
    log_prompts: bool = Field(default=False, description="write prompt texts into the log")
    picker_metrics: bool = Field(default=False, description="also by the names that Kubernetes' endpoint pickers know")
    otlp_endpoint: str | None = Field(
        default=None, description="collector of spans and metrics; None: what OTEL_EXPORTER_OTLP_ENDPOINT says, if set"
    )
    trace_ratio: float | None = Field(
        default=None, ge=0, le=1, description="share of traces that are recorded; None: what OTEL_TRACES_SAMPLER says"
    )

    @property
    def connections_per_address(self) -> int:
        """Of one address, the default worked out."""
        return self.max_connections_per_address or max(1, self.max_connections // 2)

    @model_validator(mode="after")
    def _check(self) -> ServerConfig:
        for root in (*self.adapter_roots, *([self.adapter_folder] if self.adapter_folder else [])):
            if not root.is_dir():
                raise ValueError(f"adapter_roots: {root} is not a directory")
        for name, path in self.adapters.items():
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
                raise ValueError(f"adapters: {name!r} is not a name; use letters, digits, '.', '_' and '-'")
            if not path.is_dir():
                raise ValueError(f"adapters.{name}: {path} is not a directory")
        if self.otlp_endpoint is not None and not re.fullmatch(r"https?://[^\s/?#@]+/?", self.otlp_endpoint):
            raise ValueError("otlp_endpoint: write http://HOST:PORT, or https://HOST:PORT for TLS")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key: give both or neither")
        if self.tls_client_authority is not None and self.tls_certificate is None:
            raise ValueError("tls_client_authority: needs tls_certificate and tls_key")
        if self.metrics_port is not None and not is_loopback(self.metrics_host) and not self.allow_insecure:
            raise ValueError(
                f"metrics_host: {self.metrics_host} is reachable from other machines, and metrics have neither TLS nor "
                "tokens; use a loopback address with a proxy in front, or set allow_insecure"
            )
        if self.tls_certificate is None and not is_loopback(self.host) and not self.allow_insecure:
            raise ValueError(
                f"host: {self.host} is reachable from other machines and there is no TLS; "
                "set tls_certificate and tls_key, or allow_insecure"
            )
        return self
