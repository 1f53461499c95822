"""Servers to attack, on a tiny model."""

from tests.server.conftest import metadata, model_directory, root, server_config

__all__ = ["metadata", "model_directory", "root", "server_config"]
