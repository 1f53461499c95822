"""A server of the embedded model with adapters, a gateway in front of it, and OpenAI's own client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ift_serve.embedded import model_path
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.components.config import ComponentsConfig
from tests.support.adapters import write_random

if TYPE_CHECKING:
    import openai

    from tests.support.gateway import RunningGateway, Serving

ADMIN, READER = "admin-token-0123456789", "reader-token-0123456789"


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    from tests.support.gateway import engine_server

    folder: Path = tmp_path_factory.mktemp("gateway")
    metadata = BaseMetadata.of_directory(model_path())
    adapter = write_random(folder / "tone", metadata, seed=3)
    head = write_random(folder / "head", metadata, ComponentsConfig(temperature_head=8), seed=4, targets=())
    tokens = folder / "tokens"
    tokens.write_text(f"admin ann {ADMIN}\ngenerate bob {READER}\n", encoding="utf-8")
    tokens.chmod(0o600)
    with engine_server(adapters={"tone": adapter, "head": head}, tokens_file=tokens) as running:
        yield running


@pytest.fixture(scope="session")
def running(serving: Serving) -> Iterator[RunningGateway]:
    from tests.support.gateway import gateway

    with gateway(serving.address) as started:
        yield started


@pytest.fixture(scope="session")
def client(running: RunningGateway) -> Iterator[openai.OpenAI]:
    import openai

    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=ADMIN, max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture(scope="session")
def reader(client: openai.OpenAI) -> openai.OpenAI:
    """A caller without the role admin."""
    return client.with_options(api_key=READER)
