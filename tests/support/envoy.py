"""A running Envoy with the configuration that the package gives, its addresses and secrets replaced."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

import ift_serve.deploy.ray

CONFIGURATION = Path(ift_serve.deploy.ray.__file__).with_name("envoy.yaml")
ADMIN, CALLER = "an-admin-token-of-tests", "a-caller-token-of-tests"


def binary() -> str | None:
    """Envoy beside this interpreter or on the path."""
    return shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")


def configured(text: str, port: int, directory: Path, ingresses: list[tuple[str, int]]) -> dict[str, Any]:
    """The configuration for a free port, the certificate ``server`` in ``directory``, and these ingresses."""
    text = text.replace("/etc/ift-serve/tls", str(directory))
    text = text.replace("REPLACE-WITH-THE-TOKEN-OF-AN-ADMIN", ADMIN).replace(
        "REPLACE-WITH-THE-TOKEN-OF-A-CALLER", CALLER
    )
    found: dict[str, Any] = yaml.safe_load(text)
    listener, cluster = found["static_resources"]["listeners"][0], found["static_resources"]["clusters"][0]
    listener["address"]["socket_address"] |= {"address": "127.0.0.1", "port_value": port}
    cluster["health_checks"][0] |= {"interval": "0.2s", "no_traffic_interval": "0.2s"}
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": number}}}}
        for host, number in ingresses
    ]
    return found


@contextmanager
def envoy(directory: Path, ingresses: list[tuple[str, int]]) -> Iterator[int]:
    """The port that it listens on, once it does."""
    command = binary()
    assert command is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    path = directory / "envoy.yaml"
    path.write_text(yaml.safe_dump(configured(CONFIGURATION.read_text(), port, directory, ingresses)))
    log = directory / "envoy.log"
    options = ["-c", str(path), "--concurrency", "1", "--use-dynamic-base-id", "--log-path", str(log)]
    process = subprocess.Popen([command, *options])
    try:
        _wait_for(port, process, log)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"Envoy does not listen: {log.read_text()[-2000:] if log.exists() else process.returncode}")
