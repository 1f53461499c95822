"""What a person sees of `generate` and `chat`: the commands in a terminal of their own, against a running server."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ift_serve.cli.generate import json_fields
from ift_serve.client import AnswerSpan, Client, Trace, Vote
from tests.support.models import tiny_llama

IFT_SERVE = [sys.executable, "-c", "from ift_serve.cli import main; main()"]
DIM, RESET = "\x1b[2m", "\x1b[0m"
COLOUR = re.compile(r"\x1b\[38;2;(\d+);(\d+);(\d+)m")
SEED = ["--seed", "3", "--max-new-tokens", "8"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose model has markers of thoughts."""
    model = tiny_llama(tmp_path_factory.mktemp("terminal"), markers=("<think>", "</think>"))
    command = [*IFT_SERVE, "serve", str(model), "--port", "0", "--metrics-port", "-1", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("ift-serve ready on 127.0.0.1:"), line
    yield line.split("ready on ")[1].split(",")[0]
    process.terminate()
    assert process.wait(60) == 0


class Terminal:
    """A command in a pseudo-terminal, and everything that it shows."""

    def __init__(self, *command: str, **environment: str) -> None:
        self._own, other = pty.openpty()
        variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self._process = subprocess.Popen(
            [*IFT_SERVE, *command],
            stdin=other, stdout=other, stderr=other, env=variables | {"TERM": "xterm-256color"} | environment,
        )  # fmt: skip
        os.close(other)
        self.shown = ""

    def type(self, line: str) -> None:
        os.write(self._own, f"{line}\n".encode())

    def wait_for(self, text: str, count: int = 1, seconds: float = 120.0) -> None:
        """Until ``text`` was shown ``count`` times."""
        end = time.monotonic() + seconds
        while self.shown.count(text) < count:
            assert time.monotonic() < end and self._read(end - time.monotonic()), self.shown

    def end(self, seconds: float = 120.0) -> str:
        """Everything that was shown, once the command is over. Raises AssertionError unless it succeeds."""
        end = time.monotonic() + seconds
        while self._read(end - time.monotonic()):
            assert time.monotonic() < end, self.shown
        assert self._process.wait(seconds) == 0, self.shown
        os.close(self._own)
        return self.shown.replace("\r\n", "\n")

    def _read(self, seconds: float) -> bool:
        """Whether there was anything more."""
        if not select.select([self._own], [], [], max(0.0, seconds))[0]:
            return True
        try:
            piece = os.read(self._own, 65536)
        except OSError:
            return False
        self.shown += piece.decode(errors="replace")
        return bool(piece)


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _dimmed(text: str) -> str:
    """What stands between a dim and the next reset, joined."""
    return "".join(re.findall(re.escape(DIM) + r"(.*?)" + re.escape(RESET), text, re.DOTALL))


def _visible(text: str) -> str:
    """As a terminal's line discipline shows it: line feeds become line ends."""
    return text.replace("\r\n", "\n")


def test_generate_dims_the_thought_and_colours_nothing_unasked(server: str) -> None:
    options = ["--reasoning", "trace", "--budget", "6", *SEED, "--temperature", "0.8"]
    shown = Terminal("generate", "the fox", "--server", server, *options).end()
    with Client(server) as client:
        expected = client.generate("the fox", reasoning=Trace(6), seed=3, max_new_tokens=8, temperature=0.8)
    assert expected.reasoning and expected.text
    assert _dimmed(shown) == _visible(expected.reasoning)
    assert _visible(expected.text) in _plain(shown) and not COLOUR.search(shown)
    assert _visible(expected.text) not in _dimmed(shown)


def test_generate_colours_tokens_by_temperature_on_demand(server: str) -> None:
    asked = ["generate", "the fox", "--server", server, *SEED, "--colour", "temperature"]
    cold = Terminal(*asked, "--temperature", "0.1").end()
    hot = Terminal(*asked, "--temperature", "1.9").end()
    for shown, is_hot in ((cold, False), (hot, True)):
        colours = {(int(red), int(blue)) for red, _, blue in COLOUR.findall(shown)}
        assert len(colours) == 1
        ((red, blue),) = colours
        assert (red > blue) is is_hot
    assert not COLOUR.search(Terminal(*asked, "--temperature", "1.9", NO_COLOR="1").end())


def test_generate_shows_what_was_compared_and_marks_the_chosen(server: str) -> None:
    options = ["--reasoning", "vote", "--samples", "4", "--vote-stop", "all", "--answer", "last_line"]
    shown = Terminal("generate", "the fox", "--server", server, *options, *SEED, "--temperature", "1").end()
    with Client(server) as client:
        vote = Vote(4, stop="all", span=AnswerSpan("last_line"))
        expected = client.generate("the fox", reasoning=vote, seed=3, max_new_tokens=8, temperature=1.0)
    lines = _plain(shown).splitlines()
    compared = [line for line in lines if re.match(r"[* ] .*confidence .*votes .*tokens", line)]
    assert len(compared) == 4 and sum(line.startswith("*") for line in compared) == 1
    assert [float(re.findall(r"confidence ([0-9.]+)", line)[0]) for line in compared] == pytest.approx(
        [branch.confidence for branch in expected.branches], abs=1e-3
    )
    assert any(line.startswith("vote: ") for line in lines) and "vote: " in _dimmed(shown)


def test_json_has_everything_that_the_client_has(server: str) -> None:
    options = ["--reasoning", "vote", "--samples", "3", "--budget", "4", "--answer", "last_line", "--temperature", "1"]
    more = ["--statistics", "--alternatives", "3", "--processed-log-probs", "--prompt-ids", "--json"]
    shown = json.loads(Terminal("generate", "the fox", "--server", server, *SEED, *options, *more).end())
    with Client(server) as client:
        vote = Vote(3, span=AnswerSpan("last_line"), trace=Trace(4))
        expected: Any = json_fields(
            client.generate(
                "the fox", reasoning=vote, seed=3, max_new_tokens=8, temperature=1.0, statistics=True,
                top_alternatives=3, processed_log_probs=True, prompt_token_ids=True,
            )
        )  # fmt: skip
    for times in (shown["usage"], expected["usage"]):
        for name in ("queue_seconds", "first_token_seconds", "total_seconds", "cached_tokens"):
            times.pop(name)
    assert shown.pop("request_id") != expected.pop("request_id")
    assert shown == json.loads(json.dumps(expected))
    (candidate,) = shown["candidates"]
    assert candidate["reasoning"] and shown["conclusion"]["branches"] and shown["prompt_token_ids"]
    drawn = [token for token in candidate["tokens"] if not token["forced"]]
    assert all(token["statistics"]["temperature"] == 1 and len(token["alternatives"]) == 3 for token in drawn)
    assert all(token["processed_log_prob"] is not None for token in drawn)


def test_chat_dims_thoughts_colours_on_demand_and_shows_votes(server: str) -> None:
    options = ["--reasoning", "trace", "--budget", "5", "--max-new-tokens", "6", "--temperature", "0"]
    terminal = Terminal("chat", "--server", server, *options, "--colour", "temperature")
    terminal.wait_for("> ")
    terminal.type("the fox")
    terminal.wait_for("> ", 2)
    terminal.type("/quit")
    shown = terminal.end()
    answer = shown[shown.index("the fox") :]
    thought = re.findall(r"\x1b\[38;2;[0-9;]*m\x1b\[2m", answer)
    assert len(thought) >= 4, "the thought is coloured and dimmed"
    assert len(COLOUR.findall(answer)) > len(thought), "the answer is coloured too"

    votes = ["--reasoning", "vote", "--samples", "3", "--answer", "last_line", "--max-new-tokens", "4"]
    terminal = Terminal("chat", "--server", server, *votes, "--temperature", "1")
    terminal.wait_for("> ")
    terminal.type("the fox")
    terminal.wait_for("> ", 2)
    terminal.type("/quit")
    shown = terminal.end()
    assert "vote: " in _dimmed(shown) and not COLOUR.search(shown)
