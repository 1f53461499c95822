"""Whether telemetry is asked for, by an option or by the environment; imports the library only then."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ift_serve.server.config import ServerConfig

if TYPE_CHECKING:
    from ift_serve.server.telemetry.export import Telemetry

_log = logging.getLogger(__name__)
_ENDPOINTS = tuple(f"OTEL_EXPORTER_OTLP_{part}ENDPOINT" for part in ("", "TRACES_", "METRICS_"))
_EXTRA = "pip install 'ift-serve[otel]'"


def open_telemetry(config: ServerConfig) -> Telemetry | None:
    """None where nobody asks for it, or ``OTEL_SDK_DISABLED`` says so. Raises ValueError where it cannot be had."""
    named = [name for name in _ENDPOINTS if os.environ.get(name)]
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if config.otlp_endpoint is None and not named:
        return None
    try:
        from ift_serve.server.telemetry.export import telemetry_of
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        if config.otlp_endpoint is None:
            _log.warning("%s is set, but nothing is sent there: %s", named[0], _EXTRA)
            return None
        raise ValueError(f"otlp_endpoint: OpenTelemetry is not installed; {_EXTRA}") from None
    return telemetry_of(config)
