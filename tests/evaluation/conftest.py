"""Real servers in a thread of this process, shared by all tests of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ift_serve.cli.hosted_evaluation import hosted_evaluation
from ift_serve.embedded import model_path
from tests.support.models import tiny_llama
from tests.support.threaded_server import threaded_server


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, a context of 256."""
    return tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def adapter_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="session")
def tiny_server(tiny_model: Path, adapter_root: Path) -> Iterator[str]:
    """Address of a server of random weights."""
    yield from threaded_server(tiny_model, adapter_root)


@pytest.fixture(scope="session")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of the embedded model."""
    yield from threaded_server(model_path(), tmp_path_factory.mktemp("no-adapters"))


@pytest.fixture(scope="session")
def hosting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of the embedded model that offers evaluations."""
    yield from threaded_server(model_path(), tmp_path_factory.mktemp("none"), hosted_evaluation)
