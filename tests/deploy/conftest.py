"""A tiny model for the servers whose metrics are compared with what is deployed beside them."""

from __future__ import annotations

from tests.server.conftest import model_directory, server_config

__all__ = ["model_directory", "server_config"]
