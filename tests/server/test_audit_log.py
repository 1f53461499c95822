"""The audit log over the wire: every call that needs the role admin, whoever made it, and never a token."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ift_serve.client import AsyncClient, ServerError
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.server import audit_log
from ift_serve.server.audit_log import AuditLog
from ift_serve.server.config import ServerConfig
from ift_serve.server.folder import WatchedFolder
from tests.support.adapters import write_random
from tests.support.serving import serving

Make = Callable[..., ServerConfig]
ADMIN, OTHER = "admin-secret-0123456789", "other-secret-0123456789"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def calls(file: Path) -> list[tuple[Any, ...]]:
    told = [line for line in lines(file) if line["event"] == "call"]
    return [(one.get("client"), one["method"], one.get("adapter"), one["code"]) for one in told]


def until(done: Callable[[], object]) -> None:
    """Wait for the thread that writes."""
    waited = threading.Event()
    for _ in range(6000):
        if done():
            return
        waited.wait(0.01)
    raise AssertionError("it did not come")


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"admin ops {ADMIN}\ngenerate app {OTHER}\n")
    file.chmod(0o600)
    return file


async def test_who_did_what_is_told_and_attempts_are(
    server_config: Make, metadata: BaseMetadata, root: Path, tokens: Path, tmp_path: Path
) -> None:
    file = tmp_path / "audit.jsonl"
    for seed in (1, 2):
        write_random(root / f"v{seed}", metadata, seed=seed)
    config = server_config(adapter_roots=[root], tokens_file=tokens, audit_log=file)
    async with serving(config) as (server, nobody):
        target = f"127.0.0.1:{server.port}"
        async with AsyncClient(target, token=ADMIN) as ops, AsyncClient(target, token=OTHER) as app:
            first = await ops.load_adapter("tone", "v1")
            second = await ops.load_adapter("tone", "v2")
            for client in (app, nobody):
                with pytest.raises(ServerError):
                    await client.load_adapter("tone", "v1")
            with pytest.raises(ServerError):
                await ops.load_adapter("tone", "nowhere\nat all")
            await app.generate("the fox", max_new_tokens=2)
            with pytest.raises(ServerError):
                _ = [event async for event in app.evaluate(["adherence"], limit=1)]
            _ = [event async for event in ops.evaluate(["adherence"], limit=1, decoding={"max_new_tokens": 2})]
            await ops.unload_adapter("tone")
    assert calls(file) == [
        ("ops", "LoadAdapter", "tone", "OK"),
        ("ops", "LoadAdapter", "tone", "OK"),
        ("app", "LoadAdapter", None, "PERMISSION_DENIED"),
        (None, "LoadAdapter", None, "UNAUTHENTICATED"),
        ("ops", "LoadAdapter", "tone", "INVALID_ARGUMENT"),
        ("app", "Run", None, "PERMISSION_DENIED"),
        ("ops", "Run", "", "OK"),
        ("ops", "UnloadAdapter", "tone", "OK"),
    ]
    told = lines(file)
    assert [line["event"] for line in told if line["event"] != "call"] == ["ready", "drain", "stopped"]
    loads = [line for line in told if line.get("method") == "LoadAdapter"]
    assert (loads[0]["version"], loads[1]["version"], loads[1]["replaces"]) == (
        first.version,
        second.version,
        first.version,
    )
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") and line["address"] == "ipv4:127.0.0.1" for line in loads)
    assert all({"time", "request_id", "seconds"} <= set(line) for line in loads)
    assert ADMIN not in file.read_text() and OTHER not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


async def test_what_a_folder_and_the_start_load_is_told_too(
    server_config: Make, metadata: BaseMetadata, root: Path, tmp_path: Path
) -> None:
    write_random(root / "tone", metadata, seed=1)
    (root / "broken").mkdir()
    (root / "broken" / "adapter_config.json").write_text("{")
    file = tmp_path / "audit.jsonl"
    async with serving(server_config(adapters={"first": root / "tone"}, audit_log=file)) as (server, _):
        folder = WatchedFolder(server.engine, root, 1.0, server.parts.audit)
        for _ in range(2):
            await folder.step()
            await folder.settle()
        (root / "tone").rename(root / ".tone")
        for _ in range(2):
            await folder.step()
            await folder.settle()
    told = [(line["event"], line.get("method"), line.get("adapter"), line.get("code")) for line in lines(file)]
    assert told[0] == ("start", "LoadAdapter", "first", "OK")
    assert sorted(told[2:4]) == [
        ("folder", "LoadAdapter", "broken", "FAILED_PRECONDITION"),
        ("folder", "LoadAdapter", "tone", "OK"),
    ]
    assert told[4] == ("folder", "UnloadAdapter", "tone", "OK")


async def test_a_renamed_file_is_left_at_a_reload(server_config: Make, tokens: Path, tmp_path: Path) -> None:
    file, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    async with (
        serving(server_config(tokens_file=tokens, audit_log=file)) as (server, _),
        AsyncClient(f"127.0.0.1:{server.port}", token=ADMIN) as ops,
    ):
        await ops.adapters()
        until(lambda: "ListAdapters" in file.read_text())
        file.rename(old)
        await ops.adapters()
        until(lambda: old.read_text().count("ListAdapters") == 2)
        server.reload()
        await ops.adapters()
    assert calls(file) == [("ops", "ListAdapters", None, "OK")]
    assert [line["event"] for line in lines(file)][:2] == ["reload", "tokens"]


def test_lines_behind_a_reopening_are_in_the_new_file_while_one_before_it_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    begun, may_end, written = threading.Event(), threading.Event(), os.write

    def write(descriptor: int, data: bytes) -> int:
        begun.set()
        may_end.wait(10)
        return written(descriptor, data)

    monkeypatch.setattr("ift_serve.server.audit_log.os.write", write)
    log = AuditLog(file)
    log.write("call")
    assert begun.wait(10)
    file.rename(old)
    log.reopen()
    log.write("reload")
    may_end.set()
    log.close()
    assert [[line["event"] for line in lines(each)] for each in (old, file)] == [["call"], ["reload"]]


class Disk:
    """A disk that is full once so many bytes are on it, as ``os.write`` tells of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._write = os.write
        monkeypatch.setattr("ift_serve.server.audit_log.os.write", self.write)
        monkeypatch.setattr(audit_log, "_RETRY_SECONDS", 0.01)

    def write(self, file: int, content: bytes) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(file, content[: self.room])
        self.room -= written
        return written


def test_a_full_disk_is_reported_and_lines_wait_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "audit.jsonl"
    disk = Disk(monkeypatch, room=100)
    log = AuditLog(file)
    for number in range(5):
        log.write("call", number=number)
    until(lambda: "cannot be written" in caplog.text)
    assert file.stat().st_size == 100, "the second line is there in part"
    disk.room = 10**6
    until(lambda: file.read_text().count("\n") == 5)
    log.close()
    assert [line["number"] for line in lines(file)] == list(range(5)), "whole, in their order, none twice"
    assert caplog.text.count("cannot be written") == 1


def test_past_its_bound_lines_are_lost_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "_MOST_WAITING", 3)
    disk, lost = Disk(monkeypatch, room=0), []
    log = AuditLog(tmp_path / "audit.jsonl", lambda: lost.append(1))
    for number in range(10):
        log.write("call", number=number)
    assert len(lost) == 7
    disk.room = 10**6
    log.close()
    told = lines(tmp_path / "audit.jsonl")
    assert [line.get("number") for line in told if line["event"] == "call"] == [0, 1, 2]
    assert sum(line.get("lines", 0) for line in told) == 7


def test_what_is_not_written_at_the_end_is_in_the_ordinary_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Disk(monkeypatch, room=0)
    log = AuditLog(tmp_path / "audit.jsonl")
    log.write("call", method="UnloadAdapter")
    log.close()
    assert any("UnloadAdapter" in getattr(record, "line", "") for record in caplog.records)


def test_a_line_that_a_crash_cut_off_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text('{"event": "ca')
    log = AuditLog(file)
    log.write("ready")
    log.close()
    assert json.loads(file.read_text().splitlines()[1])["event"] == "ready"


def test_what_cannot_be_opened_is_said_at_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path, tmp_path / "fifo", tmp_path / "no" / "file"):
        with pytest.raises(OSError, match="audit_log: "):
            AuditLog(place)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 KiB of a disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a disk needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


async def test_calls_go_on_while_a_real_disk_is_full(
    server_config: Make, tokens: Path, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, ballast = small_disk / "audit.jsonl", small_disk / "ballast"
    async with (
        serving(server_config(tokens_file=tokens, audit_log=file)) as (server, _),
        AsyncClient(f"127.0.0.1:{server.port}", token=ADMIN) as ops,
    ):
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(bytes(1 << 20))
        for _ in range(60):
            async with asyncio.timeout(30):
                await ops.adapters()
        until(lambda: "cannot be written" in caplog.text)
        ballast.unlink()
        until(lambda: file.read_text().count("ListAdapters") == 60)
    assert len(calls(file)) == 60
