"""Servers and runtimes that answer the same requests, each in a process of its own, asked by lines of JSON or HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from ours import server, through_grpc

from ift_serve.cli.bench import Request
from peers.in_process import Timing

_READY_SECONDS = 600.0
_HERE = Path(__file__).parent


class Peer(Protocol):
    """Something that answers all of the requests, so many at once."""

    name: str
    pid: int

    def run(self, requests: Sequence[Request], concurrency: int) -> Timing:
        """Seconds and tokens."""

    def close(self) -> None:
        """End its process."""


class Ours:
    """This server, over gRPC."""

    def __init__(self, name: str, model: str, options: list[str]) -> None:
        self.name = name
        self._context = server(Path(model), *options, "--no-prefix-caching", "--metrics-port", "-1")
        self._address, self.pid = self._context.__enter__()

    def run(self, requests: Sequence[Request], concurrency: int) -> Timing:
        """See :class:`Peer`."""
        report = through_grpc(self._address, list(requests), concurrency, whole=True)
        return Timing(report.seconds, report.generated_tokens)

    def close(self) -> None:
        """See :class:`Peer`."""
        self._context.__exit__(None, None, None)


class Worker:
    """A script of this folder under another interpreter: a line of JSON in, a line of JSON out."""

    def __init__(self, name: str, python: str, script: str, *arguments: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [python, str(_HERE / script), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self._answer()

    def run(self, requests: Sequence[Request], concurrency: int) -> Timing:
        """See :class:`Peer`."""
        assert self._process.stdin is not None
        asked = {"prompts": [r.token_ids for r in requests], "new_tokens": [r.new_tokens for r in requests]}
        self._process.stdin.write(json.dumps(asked | {"concurrency": concurrency}) + "\n")
        self._process.stdin.flush()
        told = self._answer()
        return Timing(told["seconds"], told["tokens"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries say other things too
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError(f"{self.name} ended with exit code {self._process.wait()}")

    def close(self) -> None:
        """See :class:`Peer`."""
        self._process.kill()
        self._process.wait()


class LlamaServer:
    """llama.cpp's server, over its HTTP."""

    def __init__(self, name: str, binary: str, file: str, threads: int, port: int) -> None:
        self.name, self._url = name, f"http://127.0.0.1:{port}"
        slots = 32
        self._process = subprocess.Popen(
            [binary, "-m", file, "--port", str(port), "-t", str(threads), "-np", str(slots), "-c", str(slots * 512),
             "--no-webui"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.pid = self._process.pid
        deadline = time.monotonic() + _READY_SECONDS
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not become ready")
            time.sleep(0.2)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def run(self, requests: Sequence[Request], concurrency: int) -> Timing:
        """See :class:`Peer`."""

        def one(request: Request) -> int:
            asked = {
                "prompt": list(request.token_ids), "n_predict": request.new_tokens, "temperature": 0,
                "ignore_eos": True, "cache_prompt": False,
            }  # fmt: skip
            sent = urllib.request.Request(
                f"{self._url}/completion", json.dumps(asked).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(sent, timeout=900) as answer:
                return int(json.load(answer)["tokens_predicted"])

        begun = time.perf_counter()
        with ThreadPoolExecutor(concurrency) as pool:
            tokens = sum(pool.map(one, requests))
        return Timing(time.perf_counter() - begun, tokens)

    def close(self) -> None:
        """See :class:`Peer`."""
        self._process.terminate()
        self._process.wait()


def transformers_worker(model: str, threads: int) -> Worker:
    """``generate`` in padded batches, in this interpreter."""
    return Worker("transformers", sys.executable, "transformers_worker.py", model, str(threads))
