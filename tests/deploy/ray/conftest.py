"""The model, its adapters, and the single server that answers of a cluster are held against."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from ift_serve.client import AsyncClient
from ift_serve.modeling.adapter_format.base import BaseMetadata
from tests.support.adapters import write_random
from tests.support.models import tiny_llama
from tests.support.ray_deployed import ADAPTERS, PROMPTS, SAMPLING, Deployed
from tests.support.threaded_server import threaded_server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"), context=4096)


@pytest.fixture(scope="module")
def root(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("adapters")
    metadata = BaseMetadata.of_directory(model)
    for seed, name in enumerate(ADAPTERS, 1):
        write_random(found / name, metadata, seed=seed)
    return found


@pytest.fixture(scope="module")
def solo_server(model: Path, root: Path) -> Iterator[str]:
    yield from threaded_server(model, root)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def solo(solo_server: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(solo_server, timeout=60) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def texts(solo: AsyncClient) -> list[str]:
    """What each prompt is answered with when nothing else is asked."""
    return [(await solo.generate(prompt, **SAMPLING)).text for prompt in PROMPTS]


@pytest_asyncio.fixture(loop_scope="module")
async def client(deployed: Deployed) -> AsyncIterator[AsyncClient]:
    """Asks the cluster that a module has deployed."""
    async with AsyncClient(deployed.ingress, timeout=120) as found:
        yield found
