"""Configuration of a deployment on Ray Serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ift_serve.server.config import ServerConfig

Port = Annotated[int, Field(ge=1, le=65535)]
_ABOVE_ZERO = Annotated[float, Field(gt=0, allow_inf_nan=False)]

ELSEWHERE = {
    "host": "Ray's ingress listens; set port",
    "port": "Ray's ingress listens; set port beside server",
    "metrics_host": "Ray exports what replicas count; see docs/ray.md",
    "metrics_port": "Ray exports what replicas count; see docs/ray.md",
    "tls_certificate": "Ray's gRPC port has no TLS; a proxy in front of it has, see docs/ray.md",
    "tls_key": "Ray's gRPC port has no TLS; a proxy in front of it has, see docs/ray.md",
    "tls_client_authority": "Ray's gRPC port has no TLS; a proxy in front of it has, see docs/ray.md",
    "allow_insecure": "Ray's gRPC port is open to whoever reaches it; see docs/ray.md",
    "adapter_folder": "replicas that look by themselves would have other versions for a while; use LoadAdapter",
    "max_connections": "connections end at Ray's ingress",
    "max_connections_per_address": "connections end at Ray's ingress",
    "max_streams": "connections end at Ray's ingress",
    "stream_idle_timeout": "Ray's ingress holds what a caller does not read",
    "drain_timeout": "set drain_timeout beside server",
    "drain_notice": "Ray's ingress takes a replica out before it drains",
    "max_evaluations": "evaluations are not run on replicas; run `ift-serve eval` against the ingress",
}
"""Fields of the server's configuration that mean nothing in a replica, and what to do instead."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Autoscaling(_Settings):
    """How many replicas there are, by what is asked of them."""

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(ge=1)
    target_requests: _ABOVE_ZERO = Field(default=32, description="requests waiting and sequences running, a replica")
    target_cache: float = Field(default=0.8, gt=0, le=1, description="share of a replica's cache blocks in use")
    upscale_delay: float = Field(default=10, ge=0, description="seconds that more must have been wanted")
    downscale_delay: float = Field(default=300, ge=0, description="seconds that fewer must have been wanted")
    interval: float = Field(default=2, gt=0, description="seconds between a replica's reports")

    @model_validator(mode="after")
    def _check(self) -> Autoscaling:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas: {self.max_replicas} is less than min_replicas {self.min_replicas}")
        return self


class Resources(_Settings):
    """What Ray sets aside for one replica, its engine included."""

    cpus: float = Field(default=1, ge=0)
    gpus: float = Field(default=0, ge=0)
    memory: int | None = Field(default=None, gt=0, description="bytes")
    custom: dict[str, float] = Field(default_factory=dict, description="resources that nodes declare, by name")


class RayConfig(_Settings):
    """One model, served by replicas on a Ray cluster."""

    address: str | None = Field(
        default="auto",
        description="the cluster: auto (RAY_ADDRESS, or this node's), HOST:PORT; null: a new one of this machine",
    )
    application: str = Field(default="ift-serve", pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
    port: Port = Field(default=9000, description="gRPC port of the ingress, on every node that has one")
    http_port: Port = Field(default=8000, description="Ray's own HTTP port, of which nothing is served but health")
    ingress: Literal["auto", "haproxy", "python"] = Field(
        default="auto", description="haproxy, python (Ray's proxy in Python); auto: haproxy where there is one"
    )
    ingress_on: Literal["every_node", "head"] = Field(default="every_node", description="nodes that have an ingress")
    replicas: int | None = Field(default=None, ge=1, description="as many, always; default 1")
    autoscaling: Autoscaling | None = None
    replicas_per_node: int | None = Field(default=None, ge=1, le=100)
    resources: Resources = Resources()
    affinity: bool = Field(default=True, description="requests go where their adapter is in memory")
    drain_timeout: float = Field(default=120, ge=0, description="seconds that calls in flight get when a replica goes")
    health_interval: _ABOVE_ZERO = Field(default=10, description="seconds between Ray's looks at a replica")
    engine_absence: _ABOVE_ZERO = Field(
        default=60, description="seconds without an engine after which Ray replaces the replica"
    )
    environment: dict[str, str] = Field(default_factory=dict, description="variables of Ray's and our processes")
    server: ServerConfig

    @model_validator(mode="before")
    @classmethod
    def _refuse_elsewhere(cls, given: Any) -> Any:
        server = given.get("server") if isinstance(given, dict) else None
        for name in server if isinstance(server, dict) else ():
            if name in ELSEWHERE:
                raise ValueError(f"server.{name}: {ELSEWHERE[name]}")
        return given

    @model_validator(mode="after")
    def _check(self) -> RayConfig:
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError("replicas and autoscaling: give one of them")
        if self.port == self.http_port:
            raise ValueError(f"port: {self.port} is http_port already; choose another")
        return self


class ConfigFileError(ValueError):
    """A configuration that cannot be used; the message names file and field."""


def read_config(path: Path, model: str, model_name: str) -> RayConfig:
    """The configuration in a YAML file. ``model``, ``model_name``: where it names none. Raises ConfigFileError."""
    import yaml
    from pydantic import ValidationError

    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigFileError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigFileError(f"{path}: is not YAML: {error}") from None
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise ConfigFileError(f"{path}: holds no fields; write such as `replicas: 2`")
    server = given.setdefault("server", {})
    engine = server.setdefault("engine", {}) if isinstance(server, dict) else None
    if isinstance(engine, dict) and "model" not in engine:
        engine |= {"model": model, "model_name": engine.get("model_name", model_name)}
    try:
        return RayConfig.model_validate(given)
    except ValidationError as error:
        told = [(".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors()]
        problems = "; ".join(f"{where}: {message}".lstrip(": ") for where, message in told)
        raise ConfigFileError(f"{path}: {problems}") from None
