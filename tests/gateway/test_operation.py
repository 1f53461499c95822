"""Addresses, names of hosts, origins, encryption, health, drain, and the command."""

from __future__ import annotations

import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools", reason="needs the package httptools (extra gateway)")
pytest.importorskip("openai", reason="needs the package openai (extra dev)")

import openai
from pydantic import ValidationError

from ift_serve.gateway.config import GatewayConfig
from tests.gateway.conftest import ADMIN
from tests.support.certificates import certificate
from tests.support.gateway import RunningGateway, Serving, engine_server, gateway

SUM: Any = [{"role": "user", "content": "What is 23 + 14?"}]


def _get(url: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=sent, method=method), timeout=20) as answer:
            return answer.status, answer.read().decode(), {k.lower(): v for k, v in answer.headers.items()}
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), {k.lower(): v for k, v in error.headers.items()}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"host": "0.0.0.0"}, "host"),
        ({"host": "::"}, "host"),
        ({"host": "example.org"}, "host"),
        ({"tls_key": "x"}, "tls_certificate"),
        ({"key": "x"}, "key"),
        ({"cors_origins": ["*"]}, "cors_origins"),
        ({"cors_origins": ["https://example.org/path"]}, "cors_origins"),
        ({"trusted_proxies": ["nonsense"]}, "trusted_proxies"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        GatewayConfig.model_validate(fields)


def test_names_of_other_hosts_are_refused_on_a_loopback_address(running: RunningGateway) -> None:
    assert _get(f"{running.url}/live", host="evil.example")[0] == 400
    for name in ("localhost", "127.0.0.1:1", "[::1]:80"):
        assert _get(f"{running.url}/live", host=name)[0] == 200


def test_pages_of_other_origins_may_call_only_where_they_are_named(serving: Serving, running: RunningGateway) -> None:
    asked = {"origin": "https://app.example", "access_control_request_method": "POST"}
    _, _, headers = _get(f"{running.url}/v1/chat/completions", "OPTIONS", **asked)
    assert "access-control-allow-origin" not in headers
    with gateway(serving.address, cors_origins=["https://app.example"]) as open_one:
        path = f"{open_one.url}/v1/chat/completions"
        status, _, headers = _get(path, "OPTIONS", **asked, access_control_request_headers="authorization,content-type")
        assert (status, headers["access-control-allow-origin"]) == (200, "https://app.example")
        assert (
            "access-control-allow-origin" not in _get(path, "OPTIONS", **{**asked, "origin": "https://evil.example"})[2]
        )


def test_health_follows_the_server(serving: Serving, running: RunningGateway) -> None:
    assert _get(f"{running.url}/health")[:2] == (200, '{"status":"ok"}')
    with gateway("127.0.0.1:1") as alone:
        assert _get(f"{alone.url}/live")[0] == 200
        status, body, _ = _get(f"{alone.url}/health")
        assert status == 503 and "does not answer" in body
        with openai.OpenAI(base_url=f"{alone.url}/v1", api_key=ADMIN, max_retries=0) as client:
            with pytest.raises(openai.InternalServerError) as unreachable:
                client.chat.completions.create(model="ift-tiny", messages=SUM)
            assert unreachable.value.status_code == 503
            assert unreachable.value.response.headers["retry-after"] == "1"
            assert "127.0.0.1" not in unreachable.value.message, "the server's address is the operator's affair"


def test_encryption_to_the_server_and_to_callers(tmp_path: Path) -> None:
    authority = certificate(tmp_path, "authority", None)
    certificate(tmp_path, "server", authority)
    pair: dict[str, Any] = {"tls_certificate": tmp_path / "server.crt", "tls_key": tmp_path / "server.key"}
    with engine_server(**pair) as serving:
        address = serving.address.replace("127.0.0.1", "localhost")
        with gateway(address, authority=tmp_path / "authority.crt", **pair) as running:
            context = ssl.create_default_context(cafile=str(tmp_path / "authority.crt"))
            with urllib.request.urlopen(f"https://localhost:{running.port}/v1/models", context=context) as answer:
                assert json.loads(answer.read())["data"][0]["id"] == "ift-tiny"
        with gateway(address) as plain:
            assert _get(f"{plain.url}/v1/models")[0] == 503


def _presented(port: int) -> str:
    """The certificate that a new connection is shown, in PEM."""
    return ssl.get_server_certificate(("localhost", port), timeout=30)


def test_a_new_certificate_is_used_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("server", "next"):
        certificate(tmp_path, name, None)
    old, new = ((tmp_path / f"{name}.crt").read_text() for name in ("server", "next"))
    key = (tmp_path / "server.key").read_bytes()
    with gateway("127.0.0.1:1", tls_certificate=tmp_path / "server.crt", tls_key=tmp_path / "server.key") as running:
        assert _presented(running.port) == old
        with caplog.at_level(logging.INFO, "ift_serve"):
            (tmp_path / "server.key").write_text("no key")
            _until(lambda: "the new certificate is not used" in caplog.text)
            assert _presented(running.port) == old
            (tmp_path / "server.key").write_bytes(key)
            for end in ("crt", "key"):
                os.replace(tmp_path / f"next.{end}", tmp_path / f"server.{end}")
            _until(lambda: _presented(running.port) == new)
    assert "BEGIN" not in caplog.text


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_command_drains_on_sigterm(serving: Serving) -> None:
    command = [sys.executable, "-c", "from ift_serve.cli import main; main()", "gateway", "--port", "0"]
    command += ["--server", serving.address, "--drain-notice", "0.2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "gateway ready on http://127.0.0.1:" in line
        url = line.split()[3].rstrip(",")
        with openai.OpenAI(base_url=url, api_key=ADMIN, max_retries=0, timeout=60) as client:
            stream = client.chat.completions.create(
                model="ift-tiny", messages=SUM, stream=True, max_tokens=100, extra_body={"ignore_eos": True}
            )
            first = next(iter(stream))
            process.send_signal(signal.SIGHUP)  # ends nothing
            process.send_signal(signal.SIGTERM)
            rest = list(stream)
        assert first.choices and rest[-1].choices[0].finish_reason == "length"
        assert process.wait(20) == 0
        assert process.stderr is not None
        logged = process.stderr.read()
        assert ADMIN not in logged and "23 + 14" not in logged
        assert any(json.loads(entry).get("path") == "/v1/chat/completions" for entry in logged.splitlines())
    finally:
        process.kill()
        process.wait()
