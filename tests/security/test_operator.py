"""What an operator changes, or gets wrong: tokens, certificates, ports, addresses."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from pydantic import ValidationError

from ift_serve.client import AsyncClient, ServerError
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.server.app import Server
from ift_serve.server.auth import Authenticator
from ift_serve.server.config import ServerConfig
from ift_serve.server.listener import ListenError
from ift_serve.v1 import model_pb2, model_pb2_grpc
from tests.support.certificates import certificate
from tests.support.serving import serving

Make = Callable[..., ServerConfig]
OLD, NEW = "old-secret-0123456789", "new-secret-0123456789"


async def test_tokens_are_read_again_and_bad_ones_change_nothing(
    server_config: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"generate app {OLD}\n")
    tokens.chmod(0o600)
    async with serving(server_config(tokens_file=tokens)) as (server, _):
        target = f"127.0.0.1:{server.port}"
        async with AsyncClient(target, token=OLD) as old, AsyncClient(target, token=NEW) as new:
            await old.tokenize("a")
            with pytest.raises(ServerError):
                await new.tokenize("a")
            tokens.write_text("generate app\n")
            server.reload()
            await old.tokenize("a")
            assert "the new tokens are not used" in caplog.text
            tokens.write_text(f"generate app {NEW}\n")
            server.reload()
            await new.tokenize("a")
            with pytest.raises(ServerError) as refused:
                await old.tokenize("a")
            assert refused.value.code == "UNAUTHENTICATED"
    assert OLD not in caplog.text and NEW not in caplog.text


def test_changed_tokens_are_noticed_without_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ift_serve.server.auth._LOOK_SECONDS", 0.0)
    tokens = tmp_path / "tokens"
    tokens.write_text(f"generate app {OLD}\n")
    authenticator = Authenticator(tokens)
    assert authenticator.identify((("authorization", f"Bearer {OLD}"),), "").name == "app"
    tokens.write_text(f"admin ops {NEW}\n# longer\n")
    assert authenticator.identify((("authorization", f"Bearer {NEW}"),), "").role == "admin"


def test_a_token_taken_away_ends_what_it_began_where_nobody_else_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ift_serve.server.auth._LOOK_SECONDS", 0.0)
    tokens = tmp_path / "tokens"
    tokens.write_text(f"admin ops {OLD}\n")
    authenticator = Authenticator(tokens)
    watching = authenticator.identify((("authorization", f"Bearer {OLD}"),), "")
    assert authenticator.is_current(watching)
    tokens.write_text(f"admin ops {NEW}\n# longer\n")
    assert not authenticator.is_current(watching)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True), (0o400, False)])
def test_a_tokens_file_that_others_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"generate app {OLD}\n")
    tokens.chmod(mode)
    with caplog.at_level(logging.WARNING, "ift_serve"):
        Authenticator(tokens)
    assert ("chmod 600" in caplog.text) == warned


async def test_a_new_certificate_is_used_and_a_broken_one_is_not(
    server_config: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = certificate(tmp_path, "first", None), certificate(tmp_path, "second", None)
    for name, authority in (("one", first), ("two", second)):
        certificate(tmp_path, name, authority)

    def install(name: str) -> None:
        for end in ("crt", "key"):
            new = tmp_path / f"new.{end}"
            new.write_bytes((tmp_path / f"{name}.{end}").read_bytes())
            os.replace(new, tmp_path / f"server.{end}")

    install("one")
    config = server_config(host="localhost", tls_certificate=tmp_path / "server.crt", tls_key=tmp_path / "server.key")
    async with serving(config) as (server, _):

        def channel(authority: str) -> grpc.aio.Channel:
            credentials = grpc.ssl_channel_credentials((tmp_path / f"{authority}.crt").read_bytes())
            # A channel of its own makes a connection of its own.
            own = [("grpc.use_local_subchannel_pool", 1)]
            return grpc.aio.secure_channel(f"localhost:{server.port}", credentials, options=own)

        async def ask(channel: grpc.aio.Channel) -> str:
            call = model_pb2_grpc.ModelServiceStub(channel).GetModel(model_pb2.GetModelRequest(), timeout=20)
            return (await call).architecture

        async with channel("first") as standing:
            assert await ask(standing) == "LlamaForCausalLM"
            (tmp_path / "server.crt").write_text("not a certificate")
            async with channel("first") as fresh:
                assert await ask(fresh) == "LlamaForCausalLM"
            assert "the new certificate is not used" in caplog.text
            install("two")
            async with channel("second") as fresh:
                assert await ask(fresh) == "LlamaForCausalLM"
            assert await ask(standing) == "LlamaForCausalLM"


async def test_the_port_that_is_taken_is_named(server_config: Make) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option, message in (({"port": port}, "--port"), ({"metrics_port": port}, "--metrics-port")):
            config = server_config(**option)
            server = Server(config, local_engine(config.engine))
            with pytest.raises(ListenError, match=rf"127.0.0.1:{port}.*{message} "):
                await server.start()
            await server.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_metrics_are_guarded_like_the_server(host: str) -> None:
    engine = EngineConfig(model="x")
    with pytest.raises(ValidationError, match=r"metrics_host: .* is reachable from other machines"):
        ServerConfig(engine=engine, metrics_host=host)
    assert ServerConfig(engine=engine, metrics_host=host, allow_insecure=True)
    assert ServerConfig(engine=engine, metrics_host=host, metrics_port=None)


async def test_slow_readers_of_metrics_keep_nobody_from_them(server_config: Make) -> None:
    async with serving(server_config(metrics_port=0)) as (server, _):
        assert server.metrics_port is not None
        opened = [await asyncio.open_connection("127.0.0.1", server.metrics_port) for _ in range(40)]
        told = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in opened)), timeout=60)
        # Some were waited for until their time was over, the others were told at once.
        assert any(b"503" in text for text in told) and not all(told)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.metrics_port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b"ift_engine_ready 1.0" in await asyncio.wait_for(reader.read(), timeout=60)
        for _, held in (*opened, (reader, writer)):
            held.close()


async def test_slow_readers_of_metrics_at_one_address_leave_room_for_others(
    server_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ift_serve.server.metrics_port._PATIENCE", 120.0)
    async with serving(server_config(metrics_port=0)) as (server, _):
        assert server.metrics_port is not None
        there = ("127.0.0.2", 0)
        opened = [await asyncio.open_connection("127.0.0.1", server.metrics_port, local_addr=there) for _ in range(20)]
        refused = [asyncio.ensure_future(reader.read()) for reader, _ in opened]
        await asyncio.wait(refused, return_when=asyncio.FIRST_COMPLETED)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.metrics_port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b"ift_engine_ready 1.0" in await asyncio.wait_for(reader.read(), timeout=60)
        assert sum(not read.done() for read in refused) == 4, "they are still waited for"
        for read in refused:
            read.cancel()
        for _, held in (*opened, (reader, writer)):
            held.close()


async def test_a_reader_of_metrics_that_sends_for_ever_is_cut_off(server_config: Make) -> None:
    async with serving(server_config(metrics_port=0)) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.metrics_port)
        ended = asyncio.ensure_future(reader.read())
        async with asyncio.timeout(60):
            while not ended.done():
                writer.write(b"G")
                await asyncio.wait({ended}, timeout=0.1)
        assert ended.exception() or ended.result() == b""
        writer.close()
