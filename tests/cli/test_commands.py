"""The commands as a person runs them, against a real server: in this process where no other is what is shown."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ift_serve.cli import app
from ift_serve.cli.bench import percentile, plan
from ift_serve.client import Client
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.components.config import ComponentsConfig
from tests.support.adapters import write_random
from tests.support.models import tiny_llama

COMMANDS = ("serve", "generate", "chat", "bench", "doctor", "demo", "health", "adapters", "train", "data")


_TERMINAL = {"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"}


def _ift(*arguments: str, stdin: str = "", code: int = 0) -> str:
    """What a command prints, or says of its mistake."""
    done = CliRunner().invoke(app, arguments, input=stdin, env=_TERMINAL)
    assert done.exit_code == code, done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.stdout if code == 0 else done.stderr


def _ift_process(*arguments: str, stdin: str = "", code: int = 0) -> str:
    """The same of a process of its own."""
    command = [sys.executable, "-c", "from ift_serve.cli import main; main()", *arguments]
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=120, env=os.environ | _TERMINAL, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@dataclass(frozen=True)
class Running:
    """A server in a process of its own."""

    address: str
    pid: int
    traces: Path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, adapters: Path) -> Iterator[Running]:
    model = tiny_llama(tmp_path_factory.mktemp("model"))
    traces = tmp_path_factory.mktemp("traces")
    metadata = BaseMetadata.of_directory(model)
    for seed in (1, 2):
        write_random(adapters / f"v{seed}", metadata, ComponentsConfig(segment_embedding=True), seed=seed)
    command = [
        sys.executable, "-c", "from ift_serve.cli import main; main()", "serve", str(model), "--port", "0",
        "--metrics-port", "0", "--threads", "1", "--name", "tiny", "--dtype", "float32",
        "--adapter", f"tone={adapters / 'v1'}", "--adapter-root", str(adapters),
        "--profile", str(traces), "--profile-steps", "3",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("ift-serve ready on 127.0.0.1:"), line
    assert re.search(r", holding \d+ MiB, cache up to \d+ MiB$", line.strip()), line
    yield Running(line.split("ready on ")[1].split(",")[0], process.pid, traces)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def address(running: Running) -> str:
    return running.address


def test_help() -> None:
    program = (
        "import sys\n"
        "from ift_serve.cli import main\n"
        "for command in sys.argv[1:]:\n"
        "    sys.argv[1:] = [command, '--help']\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, command\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *COMMANDS], capture_output=True, text=True, check=True)
    assert done.stdout.count("Usage") == len(COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, ift_serve.cli; print(sorted({'torch', 'transformers', 'grpc', 'numba'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_generate(address: str) -> None:
    options = ("--server", address, "--temperature", "0", "--max-new-tokens", "5")
    text = _ift("generate", "Say hello", *options)
    answer = json.loads(_ift("generate", "Say hello", *options, "--json"))
    assert answer["candidates"][0]["text"] + "\n" == text
    assert answer["usage"]["generated_tokens"] <= 5
    assert (
        json.loads(_ift_process("generate", "-", *options, "--json", stdin="Say hello"))["candidates"]
        == answer["candidates"]
    )
    assert _ift("generate", "Say hello", *options, "--n", "2").startswith("[0]")


def test_reasoning_is_asked_for_and_told(address: str) -> None:
    options = ("--server", address, "--max-new-tokens", "4", "--seed", "1")
    vote = (
        "--reasoning",
        "vote",
        "--samples",
        "3",
        "--vote-stop",
        "all",
        "--answer",
        "last_line",
        "--temperature",
        "1",
    )
    told = json.loads(_ift("generate", "Say hello", *options, *vote, "--json", "--statistics"))
    assert told["conclusion"]["mode"] == "vote" and len(told["conclusion"]["branches"]) == 3
    assert told["applied_reasoning"]["kind"] == "Vote" and told["applied_reasoning"]["settings"]["samples"] == 3
    assert told["candidates"][0]["tokens"][0]["statistics"]["temperature"] == 1.0
    shown = _ift("generate", "Say hello", *options, *vote, "--colour", "entropy")
    assert shown == told["candidates"][0]["text"] + "\n"
    assert "reasoning.trace.open_marker" in _ift("generate", "Say hello", *options, "--reasoning", "trace", code=1)
    assert "--width belongs to" in _ift("generate", "Say hello", *options, "--width", "3", code=1)
    greedy = ("--reasoning", "branch", "--width", "2", "--answer", "last_line", "--max-new-tokens", "4")
    once = json.loads(_ift("generate", "Say hello", "--server", address, *greedy, "--json"))
    talk = _ift("chat", "--server", address, *greedy, stdin="Say hello\n")
    assert talk.strip() == once["candidates"][0]["text"].strip()


def test_chat_in_a_pipe_remembers(address: str) -> None:
    shown = _ift_process(
        "chat",
        "--server",
        address,
        "--max-new-tokens",
        "3",
        "--temperature",
        "0",
        stdin="Say hello\n/history\n/reset\n/history\n/what\n",
    )
    assert "user: Say hello" in shown and shown.count("assistant:") == 1 and "/reset forgets" in shown


def test_bench(address: str) -> None:
    report = json.loads(
        _ift(
            "bench", "--server", address, "--requests", "6", "--concurrency", "3", "--output-tokens", "4", "6", "--json"
        )
    )
    assert report["requests"] == 6 and 24 <= report["generated_tokens"] <= 36
    assert report["first_token_p50"] > 0 and report["tokens_per_second"] > 0


def test_an_adapter_answers_by_name(address: str) -> None:
    options = ("--server", address, "--temperature", "0", "--max-new-tokens", "8")
    plain, tuned = (
        json.loads(_ift("generate", "Say hello", *options, *more, "--json")) for more in ((), ("--adapter", "tone"))
    )
    assert plain["adapter"] == "" and tuned["adapter"].startswith("tone@")
    assert plain["candidates"][0]["text"] != tuned["candidates"][0]["text"]
    talk = _ift("chat", *options, "--adapter", "tone", stdin="Say hello\n")
    assert talk.strip() == tuned["candidates"][0]["text"].strip()
    load = ("--requests", "4", "--output-tokens", "4", "4", "--json")
    both = _ift("bench", "--server", address, "--adapter", "tone", "--adapter", tuned["adapter"], *load)
    assert json.loads(both)["generated_tokens"] == 16
    assert "not loaded" in _ift("generate", "x", *options, "--adapter", "nobody", code=1)


def test_adapters_are_loaded_listed_and_unloaded(address: str) -> None:
    server = ("--server", address, "--json")
    first = {a["version"] for a in json.loads(_ift_process("adapters", "list", *server)) if a["name"] == "tone"}
    watching = subprocess.Popen(
        [sys.executable, "-c", "from ift_serve.cli import main; main()", "adapters", "watch", *server],
        stdout=subprocess.PIPE,
        text=True,
        # A shell has what it runs in the background ignore SIGINT, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["name"] == "tone"
    loaded = json.loads(_ift_process("adapters", "load", "other", "v2", *server))
    assert [(a["name"], a["state"]) for a in loaded] == [("other", "ready")] and loaded[0]["version"] not in first
    assert "other" in _ift_process("adapters", "list", "--server", address)
    gone = json.loads(_ift_process("adapters", "unload", "other", *server))
    assert [(a["name"], a["state"]) for a in gone] == [("other", "unloaded")]
    while (change := json.loads(watching.stdout.readline()))["state"] != "unloaded":
        assert change["name"] == "other"
    watching.send_signal(signal.SIGINT)
    assert watching.wait(timeout=30) == 0
    shown = _ift_process("adapters", "load", "other", "../v2", "--server", address, code=1)
    assert "path" in shown and "Traceback" not in shown


def test_a_signal_has_a_trace_of_some_steps_written(running: Running) -> None:
    os.kill(running.pid, signal.SIGUSR2)
    with Client(running.address) as client:
        while not (written := list(running.traces.glob("steps-*.json.gz"))):
            client.generate("Say hello", temperature=0, max_new_tokens=8, ignore_eos=True)
    events = json.loads(gzip.decompress(written[0].read_bytes()))["traceEvents"]
    assert sum(event.get("name") == "step" and event.get("cat") == "user_annotation" for event in events) == 3


def test_plans_are_seeded_and_fit_the_context() -> None:
    first, second = (plan(20, (5, 50), (1, 40), 300, 64, seed=3) for _ in range(2))
    assert first == second
    assert all(len(r.token_ids) + r.new_tokens <= 64 for r in first)
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0 and percentile([], 0.5) == 0.0


def test_health(address: str) -> None:
    assert _ift_process("health", "--server", address).strip() == "SERVING"
    assert "UNAVAILABLE" in _ift_process("health", "--server", "127.0.0.1:1", "--timeout", "1", code=1)


def test_doctor() -> None:
    findings = {f["name"]: f for f in json.loads(_ift_process("doctor", "--json"))}
    assert findings["torch"]["status"] == "ok" and int(findings["cores"]["value"].split()[0]) >= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("serve", "nowhere", "--port", "0"), "nowhere"),
        (("serve", "--host", "0.0.0.0"), "reachable from other machines"),
        (("serve", "--dtype", "int3"), "engine.dtype"),
        (("serve", "--sampling-defaults", "mine"), "sampling_defaults"),
        (("serve", "--adapter", "x=a", "--adapter", "x=b"), "x is given twice"),
        (("serve", "--adapter", "tone=nowhere"), "adapters.tone: nowhere is not a directory"),
        (("serve", "--port", "0", "--metrics-port", "-1", "--adapter", "tone=/dev"), "--adapter tone=/dev: "),
        (("generate", "x", "--server", "127.0.0.1:1"), "ift-serve serve"),
        (("bench", "--output-tokens", "9", "3"), "not a range"),
    ],
)
def test_mistakes_are_explained(arguments: tuple[str, ...], said: str) -> None:
    shown = _ift_process(*arguments, code=2 if arguments[0] == "bench" else 1)
    assert said in shown and "Traceback" not in shown


def test_the_demo_shows_answers() -> None:
    shown = json.loads(_ift_process("demo", "--quick", "--json"))
    assert len(shown["answers"]) >= 6 and all(a["text"] for a in shown["answers"])


def test_two_servers_do_not_share_a_port(address: str, tmp_path: Path) -> None:
    shown = _ift_process(
        "serve", str(tiny_llama(tmp_path)), "--port", address.rsplit(":", 1)[1], "--metrics-port", "0", code=1
    )
    assert "cannot listen" in shown
