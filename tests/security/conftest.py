"""Servers to attack, on a tiny model."""

from tests.server.conftest import facts, model_directory, root, server_config

__all__ = ["facts", "model_directory", "root", "server_config"]
