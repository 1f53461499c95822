"""Adapters of several replicas: the same everywhere, in one version, whoever is told, dies or comes late."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from ift_serve.deploy.ray.adapter_record import AdapterRecord, Entry
from ift_serve.deploy.ray.replica_adapters import ReplicaAdapters, SharedAdapterService
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import LocalEngine, local_engine
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.server.adapter_service import AdapterRoots
from ift_serve.server.auth import Identity
from ift_serve.server.call_guard import Call
from ift_serve.server.errors import StatusError
from ift_serve.v1 import adapter_pb2 as pb
from tests.support.adapters import write_random
from tests.support.models import tiny_llama

CALL = Call("LoadAdapter", "id", "id/1", Identity("tests", "admin"), 0.0, None)


class Cluster:
    """Replicas with engines of their own, and the record; what Ray carries between them are calls."""

    def __init__(self, engines: list[LocalEngine], root: Path) -> None:
        self.record = AdapterRecord()
        self.replicas: list[ReplicaAdapters] = []
        self.services: list[SharedAdapterService] = []
        self.engines = engines
        self._root = root

    def join(self, engine: LocalEngine) -> ReplicaAdapters:
        replica = ReplicaAdapters(engine, self._ask, self._tell)
        service = SharedAdapterService(engine, AdapterRoots([self._root]), 4, lambda identity: True)
        service.shared = replica
        self.replicas.append(replica)
        self.services.append(service)
        return replica

    async def _ask(self, method: str, *arguments: Any) -> Any:
        return getattr(self.record, method)(*arguments)

    async def _tell(self, method: str, *arguments: Any) -> list[str]:
        assert method == "adopt_adapter"
        return list(await asyncio.gather(*(replica.adopt(*arguments) for replica in self.replicas)))

    def versions(self, name: str) -> list[str | None]:
        found = [replica.find(name) for replica in self.replicas]
        return [None if info is None else info.version for info in found]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest_asyncio.fixture
async def cluster(model: Path, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Two replicas that have begun, and a third engine for one that comes later."""
    metadata = BaseMetadata.of_directory(model)
    for seed, name in enumerate(("one", "two", "three")):
        write_random(tmp_path / name, metadata, seed=seed)
    config = EngineConfig(model=str(model), dtype="float32", total_blocks=16, threads=1)
    engines = [local_engine(config) for _ in range(3)]
    for engine in engines:  # one after the other: threads that import numba at once meet half of it
        await engine.start()
    found = Cluster(engines, tmp_path)
    for engine in engines[:2]:
        await found.join(engine).start({})
    yield found
    await asyncio.gather(*(engine.close() for engine in engines))


async def load(cluster: Cluster, name: str, directory: str, replica: int = 0) -> str:
    service = cluster.services[replica]
    return (await service.load_adapter(pb.LoadAdapterRequest(name=name, path=directory), CALL)).adapter.version


async def test_a_load_reaches_every_replica_and_so_does_an_unload(cluster: Cluster) -> None:
    version = await load(cluster, "tone", "one")
    assert cluster.versions("tone") == [version, version]
    newer = await load(cluster, "tone", "two", replica=1)
    assert newer != version and cluster.versions("tone") == [newer, newer]
    await cluster.services[0].unload_adapter(pb.UnloadAdapterRequest(name="tone", drain_seconds=1), CALL)
    assert cluster.versions("tone") == [None, None]


async def test_what_is_wrong_with_a_directory_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    version = await load(cluster, "tone", "one")
    (tmp_path / "two" / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(Exception, match="adapter_model"):
        await load(cluster, "tone", "two")
    assert cluster.versions("tone") == [version, version]


async def test_a_replica_that_comes_late_takes_up_what_is_recorded(cluster: Cluster) -> None:
    tone, style = await load(cluster, "tone", "one"), await load(cluster, "style", "two")
    late = cluster.join(cluster.engines[2])
    assert late.find("tone") is None
    await late.start({})
    assert cluster.versions("tone") == [tone] * 3 and cluster.versions("style") == [style] * 3


async def test_a_replica_whose_files_differ_serves_no_other_version(cluster: Cluster, tmp_path: Path) -> None:
    """As when a node was left out of a copy: the load says so, and its callers are sent elsewhere."""
    await load(cluster, "tone", "one")
    shutil.move(tmp_path / "two", tmp_path / "aside")
    shutil.copytree(tmp_path / "three", tmp_path / "two")
    here = await cluster.engines[0].load_adapter("tone", str(tmp_path / "aside"))
    entry = cluster.record.say([], Entry("tone", here.version, str(tmp_path / "two"), "two"))
    reasons = [await replica.adopt(entry) for replica in cluster.replicas]
    assert reasons[0] == "" and "changed" in reasons[1]
    assert cluster.versions("tone") == [here.version, None]
    assert cluster.replicas[1].is_recorded("tone"), "so its callers are handed to the other"


async def test_a_load_that_one_replica_cannot_follow_says_so(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.engines[1].close()
    with pytest.raises(StatusError) as refused:
        await load(cluster, "tone", "one")
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION and "1 of the replicas" in refused.value.message
    assert cluster.versions("tone")[0] is not None


async def test_two_loads_of_a_name_at_once_leave_one_version(cluster: Cluster) -> None:
    await asyncio.gather(
        load(cluster, "tone", "one", 0), load(cluster, "tone", "two", 1), load(cluster, "tone", "three")
    )
    versions = cluster.versions("tone")
    assert versions[0] == versions[1] is not None
    assert versions[0] == cluster.record.merge([])["tone"].version


async def test_a_record_that_died_learns_again_what_replicas_know(cluster: Cluster) -> None:
    await load(cluster, "tone", "one")
    await load(cluster, "style", "one")
    newer = await load(cluster, "tone", "two")
    cluster.record = AdapterRecord()
    third = await load(cluster, "third", "three", replica=1)
    late = cluster.join(cluster.engines[2])
    await cluster.replicas[0]._look(retry=False)
    await late.start({})
    assert cluster.versions("tone") == [newer] * 3 and cluster.versions("third") == [third] * 3


async def test_an_older_version_is_not_unloaded_everywhere_by_name(cluster: Cluster) -> None:
    version = await load(cluster, "tone", "one")
    await load(cluster, "tone", "two")
    with pytest.raises(StatusError) as refused:
        await cluster.services[0].unload_adapter(pb.UnloadAdapterRequest(name=f"tone@{version}"), CALL)
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_configured_adapters_give_way_to_what_was_loaded_since(cluster: Cluster, tmp_path: Path) -> None:
    newer = await load(cluster, "tone", "two")
    engine = cluster.engines[2]
    await engine.load_adapter("tone", str(tmp_path / "one"))
    late = cluster.join(engine)
    await late.start({"tone": tmp_path / "one"})
    assert cluster.versions("tone") == [newer] * 3


async def test_replicas_of_another_version_begin_with_what_those_before_them_had(cluster: Cluster) -> None:
    tone = await load(cluster, "tone", "one")
    await load(cluster, "gone", "two")
    await cluster.services[1].unload_adapter(pb.UnloadAdapterRequest(name="gone", drain_seconds=1), CALL)
    before = [entry for replica in cluster.replicas for entry in replica.known]
    cluster.record = AdapterRecord(before)
    late = cluster.join(cluster.engines[2])
    await late.start({})
    assert cluster.versions("tone") == [tone] * 3 and cluster.versions("gone") == [None] * 3
