"""The image, built and run as a pod runs it: without rights, on a read-only file system. Needs a docker daemon.

``IFT_IMAGE_BUILD``: more options of ``docker build``, such as ``--build-arg BASE=...`` where the default base cannot
be had.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    if shutil.which("docker") is None:
        pytest.skip("needs docker")
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("needs a docker daemon that runs")
    name = f"ift-serve-test:{uuid.uuid4().hex}"
    docker("build", *shlex.split(os.environ.get("IFT_IMAGE_BUILD", "")), "--tag", name, str(ROOT))
    yield name
    docker("image", "rm", name, check=False)


def test_it_says_what_is_in_it_and_what_it_weighs(image: str) -> None:
    (described,) = json.loads(docker("image", "inspect", image))
    assert described["Config"]["User"] == "10001:10001"
    print(f"{described['Size'] / 2**20:.0f} MiB")
    inventory = json.loads(docker("run", "--rm", "--entrypoint", "cat", image, "/usr/share/ift-serve/sbom.cdx.json"))
    assert inventory["bomFormat"] == "CycloneDX"
    assert inventory["metadata"]["component"]["name"] == "ift-serve"
    assert {"torch", "grpcio", "opentelemetry-sdk"} <= {part["name"] for part in inventory["components"]}


def test_it_serves_without_rights_on_a_read_only_file_system(image: str) -> None:
    limits = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=10001:10001")
    places = ("--tmpfs=/tmp", "--tmpfs=/cache:uid=10001", "--env=IFT_CACHE_DIR=/cache")
    container = docker("run", "--detach", *limits, *places, image).strip()
    try:
        end = time.monotonic() + 300
        while "SERVING" not in docker("exec", container, "ift-serve", "health", check=False):
            assert time.monotonic() < end, docker("logs", container, check=False)
            time.sleep(1)
        assert "uid=10001" in docker("exec", container, "id")
        assert docker("exec", container, "ift-serve", "generate", "Hello", "--max-new-tokens", "4")
        docker("stop", "--time", "60", container)
        (state,) = json.loads(docker("inspect", container))
        assert state["State"]["ExitCode"] == 0
    finally:
        docker("rm", "--force", container, check=False)
