"""Callers that ask for too much, say nothing, read nothing or go away: nobody else notices, nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("httptools", reason="needs the package httptools (extra gateway)")
pytest.importorskip("openai", reason="needs the package openai (extra dev)")

from tests.gateway.conftest import ADMIN
from tests.support.gateway import RunningGateway, Serving, gateway

SUM: Any = [{"role": "user", "content": "What is 23 + 14?"}]
LONG: dict[str, Any] = {"model": "ift-tiny", "messages": SUM, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def tight(serving: Serving) -> Iterator[RunningGateway]:
    """Few places."""
    bounds: dict[str, Any] = {"max_calls": 4, "max_connections": 12, "body_bytes": 4096, "answer_entries": 1024}
    with gateway(serving.address, **bounds) as running:
        yield running


@pytest.fixture(scope="module")
def impatient(serving: Serving) -> Iterator[RunningGateway]:
    with gateway(serving.address, read_timeout=1.5) as running:
        yield running


@contextlib.contextmanager
def connected(running: RunningGateway) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as found:
        yield found


def head(length: int | None, *more: str, path: str = "/v1/chat/completions") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json"]
    lines += [f"authorization: Bearer {ADMIN}", *([] if length is None else [f"content-length: {length}"]), *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def request(fields: dict[str, Any]) -> bytes:
    body = json.dumps(fields).encode()
    return head(len(body)) + body


def status(found: socket.socket) -> int:
    """Of the answer; 0: the connection was closed without one."""
    line = found.makefile("rb").readline()
    return int(line.split()[1]) if line else 0


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def running_sequences(serving: Serving) -> int:
    stats = serving.server.engine.stats
    return stats.running + stats.waiting


def test_a_body_that_is_announced_too_large_is_not_read(tight: RunningGateway) -> None:
    with connected(tight) as caller:
        caller.sendall(head(10**9))
        assert status(caller) == 413


def test_a_body_that_grows_too_large_is_not_read_on(tight: RunningGateway) -> None:
    with connected(tight) as caller:
        caller.sendall(head(None, "transfer-encoding: chunked"))
        with contextlib.suppress(OSError):
            for _ in range(100):
                caller.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        assert status(caller) == 413


def test_a_body_that_does_not_come_is_given_up(impatient: RunningGateway) -> None:
    with connected(impatient) as caller:
        caller.sendall(head(1000) + b"{")
        assert status(caller) == 408


def test_a_head_that_does_not_come_or_does_not_end_is_given_up(impatient: RunningGateway) -> None:
    with connected(impatient) as silent, connected(impatient) as slow, connected(impatient) as large:
        slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-")
        with contextlib.suppress(OSError):
            large.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nx-large: " + b"a" * 200_000)
        assert status(silent) == 0
        assert status(slow) == 0
        with contextlib.suppress(OSError):
            assert status(large) in (0, 400)


def test_past_the_places_of_one_caller_the_status_is_429(tight: RunningGateway, serving: Serving) -> None:
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(connected(tight)) for _ in range(2)]
        for caller in callers:
            caller.sendall(request({**LONG, "max_tokens": 400}))
            assert status(caller) == 200
        other = stack.enter_context(connected(tight))
        other.sendall(request({**LONG, "max_tokens": 1}))
        lines = other.makefile("rb")
        assert b" 429 " in lines.readline()
        assert any(line.lower().startswith(b"retry-after:") for line in iter(lines.readline, b"\r\n"))
    until(lambda: running_sequences(serving) == 0)
    with connected(tight) as caller:
        caller.sendall(request({**LONG, "max_tokens": 1}))
        assert status(caller) == 200


def test_past_the_connections_of_one_address_they_are_closed(tight: RunningGateway) -> None:
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(connected(tight)) for _ in range(12)]
        refused = 0
        for caller in callers[6:]:
            with contextlib.suppress(OSError):
                refused += status(caller) == 503
        assert refused >= 5

    def answered() -> bool:
        with connected(tight) as caller, contextlib.suppress(OSError):
            caller.sendall(request({**LONG, "max_tokens": 1}))
            return status(caller) == 200
        return False

    until(answered)


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_away_takes_the_call_along(tight: RunningGateway, serving: Serving, stream: bool) -> None:
    with connected(tight) as caller:
        caller.sendall(request({**LONG, "stream": stream, "n": 8, "max_tokens": 400}))
        until(lambda: running_sequences(serving) > 0)
    until(lambda: running_sequences(serving) == 0)


def test_who_reads_nothing_is_cut_off(serving: Serving) -> None:
    with gateway(serving.address, write_timeout=0.5) as running, socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect(("127.0.0.1", running.port))
        details = {"logprobs": True, "top_logprobs": 20, "token_details": True, "n": 16, "max_tokens": 400}
        caller.sendall(request({**LONG, **details, "temperature": 1}))
        until(lambda: running_sequences(serving) > 0)
        until(lambda: running_sequences(serving) == 0, 60)
        caller.settimeout(60)
        with contextlib.suppress(OSError):
            while caller.recv(65536):
                pass
        until(lambda: not running.server.server_state.connections)


def test_an_answer_that_is_too_large_for_one_piece_is_refused_before_it_is_made(tight: RunningGateway) -> None:
    with connected(tight) as caller:
        caller.sendall(request({**LONG, "stream": False, "logprobs": True, "top_logprobs": 20, "max_tokens": 400}))
        assert status(caller) == 400


def test_requests_sent_at_once_on_one_connection_are_answered_in_turn(tight: RunningGateway) -> None:
    with connected(tight) as caller:
        caller.sendall(request({**LONG, "stream": False, "max_tokens": 2}) * 3)
        read = b""
        while read.count(b"chat.completion") < 3:
            read += caller.recv(65536)
        assert read.count(b"HTTP/1.1 200 OK") == 3


def test_a_large_body_of_one_caller_does_not_hold_up_another(serving: Serving) -> None:
    """Parts of messages are the most expensive thing that a body can hold; others are answered between such bodies."""
    part = '{"type":"text","text":""},'
    large = f'{{"model":"ift-tiny","messages":[{{"role":"user","content":[{(part * 40_000)[:-1]}]}}]}}'.encode()
    with gateway(serving.address, body_bytes=2**21) as running, contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(connected(running)) for _ in range(6)]
        for caller in greedy:
            caller.sendall(head(len(large)) + large)
        other = stack.enter_context(connected(running))
        other.sendall(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert status(other) == 200
        assert [status(caller) for caller in greedy] == [400] * 6


def test_a_flood_of_requests_on_one_connection_is_cut_off(tight: RunningGateway) -> None:
    with connected(tight) as caller:
        caller.sendall(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n" * 500)
        read = b""
        with contextlib.suppress(OSError):
            while piece := caller.recv(65536):
                read += piece
        assert read.count(b"HTTP/1.1 200 OK") < 20


@pytest.mark.parametrize(
    "value",
    ["[" + "[]," * 20_000 + "[]]", "{" + ",".join(f'"{n}":0' for n in range(40_000)) + "}"],
)
def test_a_body_of_nothing_but_pieces_is_refused_unread(running: RunningGateway, value: str) -> None:
    body = f'{{"model":"ift-tiny","messages":{value}}}'.encode()
    with connected(running) as caller:
        caller.sendall(head(len(body)) + body)
        answer = b""
        while not answer.endswith(b"}}"):
            answer += caller.recv(4096)
        assert answer.startswith(b"HTTP/1.1 400 ") and b"too_many_fields" in answer
