"""Tokens and certificates are exchanged while a server runs and streams go on, as operators do it: files, SIGHUP."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from ift_serve.client import AsyncClient, GenerateOptions, ServerError
from ift_serve.modeling.adapter_format.base import BaseMetadata
from tests.support.adapters import write_random
from tests.support.certificates import certificate

OLD, NEW = "old-secret-0123456789", "new-secret-0123456789"
LONG: GenerateOptions = {
    "max_new_tokens": 200, "ignore_eos": True, "seed": 3, "n": 8, "statistics": True, "top_alternatives": 20,
}  # fmt: skip
"""Megabytes, which do not fit into what gRPC takes ahead: a stream of them stands until it is read."""


class Running:
    """`ift-serve serve` over TLS, and the files that an operator exchanges."""

    def __init__(self, folder: Path, model: Path, adapter: Path) -> None:
        self._folder = folder
        for name in ("one", "two"):
            authority = certificate(folder, f"authority-{name}", None)
            certificate(folder, name, authority)
        self.install("one")
        self.give(f"admin ops {OLD}\n")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from ift_serve.cli import main; main()", "serve", str(model)),
                *("--port", "0", "--metrics-port", "-1", "--host", "localhost"),
                *("--tls-certificate", str(folder / "server.crt"), "--tls-key", str(folder / "server.key")),
                *("--adapter", f"tone={adapter}"),
                *("--tokens-file", str(folder / "tokens"), "--audit-log", str(folder / "audit.jsonl")),
            ],
            stdout=subprocess.PIPE,
            stderr=(folder / "log").open("wb"),
            text=True,
        )
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        assert ready.startswith("ift-serve ready on localhost:"), (folder / "log").read_text()
        self.port = int(ready.split(",")[0].rpartition(":")[2])

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def install(self, name: str) -> None:
        """Put a certificate and its key in place, each in one go."""
        for end in ("crt", "key"):
            new = self._folder / f"new.{end}"
            new.write_bytes((self._folder / f"{name}.{end}").read_bytes())
            os.replace(new, self._folder / f"server.{end}")

    def give(self, lines: str) -> None:
        new = self._folder / "new-tokens"
        new.write_text(lines)
        new.chmod(0o600)
        os.replace(new, self._folder / "tokens")

    async def hang_up(self) -> None:
        """SIGHUP, until it has had its effect."""
        before = self.log.count("tokens read again")
        self.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(60):
            while self.log.count("tokens read again") == before:  # noqa: ASYNC110 - another process's file
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def client(self, token: str, authority: str) -> AsyncIterator[AsyncClient]:
        """On a connection of its own."""
        credentials = grpc.ssl_channel_credentials((self._folder / f"authority-{authority}.crt").read_bytes())
        target, own = f"localhost:{self.port}", [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.secure_channel(target, credentials, options=own)
        async with AsyncClient(target, token=token, channel=channel, timeout=60, retries=0) as client:
            yield client


@pytest.fixture
def running(tmp_path: Path, model_directory: Path, metadata: BaseMetadata) -> Iterator[Running]:
    server = Running(tmp_path, model_directory, write_random(tmp_path / "tone", metadata, seed=1))
    yield server
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0


async def test_tokens_and_certificates_change_under_running_streams(running: Running) -> None:
    async with running.client(OLD, "one") as standing:
        whole = [candidate.text for candidate in (await standing.generate("the fox", **LONG)).candidates]
        stream = standing.stream("the fox", **LONG)
        await anext(aiter(stream))
        watch = aiter(standing.watch_adapters())
        assert (await anext(watch)).name == "tone"

        running.install("two")
        running.give(f"admin ops {NEW}\n")
        await running.hang_up()

        async with running.client(NEW, "two") as fresh:
            assert [c.text for c in (await fresh.generate("the fox", **LONG)).candidates] == whole
            await fresh.unload_adapter("tone")
        with pytest.raises(ServerError, match="token of this watch") as caught:
            await anext(watch)
        assert caught.value.code == "UNAUTHENTICATED", "an old token's watch hears of nothing new"
        for token, authority, refused in ((OLD, "two", "UNAUTHENTICATED"), (NEW, "one", "UNAVAILABLE")):
            async with running.client(token, authority) as wrong:
                with pytest.raises(ServerError) as caught:
                    await wrong.generate("the fox", **LONG)
                assert caught.value.code == refused
        ended = await stream.result()
        assert [candidate.text for candidate in ended.candidates] == whole, "what had begun goes on to its end"
        with pytest.raises(ServerError) as caught:
            await standing.generate("the fox", **LONG)
        assert caught.value.code == "UNAUTHENTICATED", "on the old connection the old token is no good either"
    assert OLD not in running.log and NEW not in running.log
