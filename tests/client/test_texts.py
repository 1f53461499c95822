"""Text that UTF-8 cannot carry is refused by the client, by the name of its argument, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from ift_serve.cli import app
from ift_serve.client import AsyncClient, Client, InvalidRequestError, Message, Prompt

BAD = "ab\ud800"
CALLS: dict[str, Callable[[Any], Any]] = {
    "instruction": lambda c: c.generate(BAD),
    "context": lambda c: c.generate(Prompt(instruction="a", context=BAD)),
    "text": lambda c: c.generate(Prompt.from_text(BAD)),
    "messages[1].text": lambda c: c.generate([Message("system", "a"), Message("user", BAD)]),
    "messages[0].context": lambda c: c.generate([Message("user", "a", context=BAD)]),
    "stop[1]": lambda c: c.generate("a", stop=["b", BAD]),
    "adapter": lambda c: c.generate("a", adapter=BAD),
    "continuations[1]": lambda c: c.score("a", ["b", BAD]),
    "name": lambda c: c.load_adapter(BAD, "a"),
    "path": lambda c: c.load_adapter("a", BAD),
    "reference": lambda c: c.unload_adapter(BAD),
}
MORE: list[tuple[str, Callable[[Any], Any]]] = [
    *CALLS.items(),
    ("text", lambda c: c.score(BAD, ["a"])),
    ("text", lambda c: c.score_text(BAD)),
    ("adapter", lambda c: c.score("a", ["b"], adapter=BAD)),
    ("adapter", lambda c: c.score_text("a", adapter=BAD)),
    ("instruction", lambda c: c.tokenize(BAD)),
    ("reference", lambda c: c.adapter(BAD)),
]


def _check(error: InvalidRequestError, field: str) -> None:
    assert isinstance(error, ValueError) and not isinstance(error, UnicodeError)
    assert [violation.field for violation in error.violations] == [field]
    assert str(error).startswith(f"{field}: ") and "U+D800 at character 2" in str(error)
    str(error).encode()


@pytest.mark.parametrize(("field", "call"), MORE)
def test_the_sync_client(field: str, call: Callable[[Any], Any]) -> None:
    with Client("127.0.0.1:1", timeout=5) as client, pytest.raises(InvalidRequestError) as caught:
        call(client)
    _check(caught.value, field)


@pytest.mark.parametrize(("field", "call"), MORE)
async def test_the_async_client(field: str, call: Callable[[Any], Any]) -> None:
    async with AsyncClient("127.0.0.1:1", timeout=5) as client:
        with pytest.raises(InvalidRequestError) as caught:
            await call(client)
        _check(caught.value, field)


async def test_streams() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequestError) as caught:
        client.stream(BAD)
    _check(caught.value, "instruction")
    async with AsyncClient("127.0.0.1:1") as client_aio:
        with pytest.raises(InvalidRequestError) as caught:
            client_aio.stream("a", stop=[BAD])
    _check(caught.value, "stop[0]")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_token_and_a_target_that_cannot_be_sent(kind: type) -> None:
    with pytest.raises(InvalidRequestError, match="target"):
        kind(BAD)
    for token in (BAD, "secré", "secret\n"):
        with pytest.raises(InvalidRequestError, match="token: ") as caught:
            kind("127.0.0.1:1", token=token)
        assert "secr" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [["generate", BAD], ["generate", "a", "--stop", BAD], ["generate", "a", "--adapter", BAD], ["generate", "-"]],
)
def test_the_command_line(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, [*arguments, "--server", "127.0.0.1:1"], input=b"ab\xff")
    assert result.exit_code == 1
    assert "error: " in result.output and "Traceback" not in result.output
