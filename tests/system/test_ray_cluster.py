"""Clusters that are not there: Ray waits for them for minutes, we say so."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ift_serve.system.ray_cluster import NoClusterError, join

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the package ray (extra ray)")
_COMMAND = str(Path(sys.executable).parent / "ift-serve")


@pytest.fixture(autouse=True)
def no_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address of this machine that is taken, so that nobody else comes to listen at it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def _refusal(address: str) -> str:
    with pytest.raises(NoClusterError) as refused:
        join(address)
    return str(refused.value)


def test_deploy_names_a_cluster_that_is_not_there(tmp_path: Path, nobody: str) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(f"address: {nobody}\ningress: python\n")
    command = [_COMMAND, "deploy", "ray", str(file)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 1 and "Traceback" not in told.stderr
    assert f"address: no Ray cluster at {nobody}" in " ".join(told.stderr.split())


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_named_and_not_there(nobody: str, scheme: str) -> None:
    told = _refusal(scheme + nobody)
    assert f"no Ray cluster at {scheme}{nobody}" in told and "refused" in told and "ray start" in told


def test_a_cluster_of_the_environment_that_is_not_there(monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    assert f"no Ray cluster at {nobody}" in _refusal("auto")


def test_this_nodes_cluster_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    """Ray keeps the address of the cluster that it started last, and `auto` is that where none runs."""
    from ray._private.services import find_gcs_addresses

    if find_gcs_addresses():
        pytest.skip("a Ray cluster runs on this machine")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text(nobody)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    told = _refusal("auto")
    assert "no Ray cluster at auto" in told and nobody.rpartition(":")[2] in told and "ray stop" in told


@pytest.mark.parametrize("address", ["somewhere", "somewhere:port", "http://127.0.0.1:port"])
def test_what_is_no_address(address: str) -> None:
    assert f"no Ray cluster at {address}" in _refusal(address)
