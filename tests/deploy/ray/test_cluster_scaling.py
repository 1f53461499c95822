"""Replicas on a Ray cluster of one node: calls go where their adapter is, and the queue decides how many there are.

Slow, as test_cluster.py is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ift_serve.client import AsyncClient
from tests.support.ray_deployed import ADAPTERS, QUICK, SAMPLING, Deployed, Load
from tests.support.ray_nodes import missing, ray_nodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="module"),
]
_RESIDENT = {"max_adapters": 2}
_SHARE = {"cpus": 0.5}


@pytest.fixture(scope="module")
def deployed(model: Path, root: Path) -> Iterator[Deployed]:
    if reason := missing():
        pytest.skip(reason)
    with ray_nodes(1, QUICK) as nodes:
        found = Deployed(nodes, model, root)
        found.deploy(replicas=2, resources=_SHARE, engine=_RESIDENT)
        yield found


def _total(counts: list[dict[str, float]]) -> Counter[str]:
    return Counter({name: int(sum(one[name] for one in counts)) for name in ("memory", "read", "forwarded")})


async def test_calls_go_to_the_replica_whose_memory_holds_their_adapter(
    client: AsyncClient, solo: AsyncClient, deployed: Deployed
) -> None:
    """Two replicas of two adapters each: once each of four has its place, none is read again."""
    expected = {}
    for name in ADAPTERS:
        await client.load_adapter(name, name)
        await solo.load_adapter(name, name)
        expected[name] = (await solo.generate("the fox", adapter=name, **SAMPLING)).text
    assert len(set(expected.values())) == len(ADAPTERS)
    calls = [*ADAPTERS] * 6
    async with asyncio.timeout(300):
        while True:
            before = _total(await asyncio.to_thread(deployed.counts))
            answers = await asyncio.gather(*(client.generate("the fox", adapter=one, **SAMPLING) for one in calls))
            assert [answer.text for answer in answers] == [expected[name] for name in calls]
            found = _total(await asyncio.to_thread(deployed.counts)) - before
            assert found["memory"] + found["read"] == len(calls)
            if not found["read"]:
                break
    assert found["forwarded"], "the ingress knows nothing of adapters: some calls began at the other replica"


async def test_replicas_come_with_the_queue_and_go_with_it(
    client: AsyncClient, deployed: Deployed, texts: list[str]
) -> None:
    scaling = {"min_replicas": 1, "max_replicas": 2, "target_requests": 2, "interval": 1}
    scaling |= {"upscale_delay": 1, "downscale_delay": 2}
    await asyncio.to_thread(deployed.deploy, autoscaling=scaling, resources=_SHARE, engine=_RESIDENT)
    await _replicas(deployed, 1)
    load = Load(client, texts)
    load.start(8)
    await _replicas(deployed, 2)
    await load.more(20)
    await load.stop()
    await _replicas(deployed, 1)
    assert (load.wrong, load.errors) == ([], Counter())


async def _replicas(deployed: Deployed, count: int) -> None:
    """Until there are so many."""
    async with asyncio.timeout(240):
        while len(await asyncio.to_thread(deployed.counts)) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
