"""A generic client in another language, built from the .proto files alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.models import tiny_llama

HERE = Path(__file__).parent


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    if not (HERE / "node_modules" / "@grpc" / "grpc-js").is_dir():
        pytest.skip("the packages of tests/interop are not installed; run npm install there")
    return found


def test_grpc_js_lists_generates_and_streams(node: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from ift_serve.cli import main; main()",
        "serve",
        str(tiny_llama(tmp_path)),
        "--port",
        "0",
        "--metrics-port",
        "-1",
        "--name",
        "tiny",
        "--threads",
        "1",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split("ready on ")[1].split(",")[0]
        done = subprocess.run(
            [node, "client.mjs", address], cwd=HERE, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        server.terminate()
        server.wait(timeout=30)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["model"] == "tiny" and seen["finish"] == "FINISH_REASON_LENGTH"
    assert "".join(seen["pieces"]) == seen["text"] and seen["usage"]["generated_tokens"] == 12
    assert seen["refused"]["code"] == 3 and "sampling.temperature" in seen["refused"]["details"]
    assert seen["refused"]["request_id"]
