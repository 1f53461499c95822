"""Each example, run as a person runs it, against a server on the embedded model."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LONGEST = 60
PUBLIC = {"ift_serve.client"}
Run = Callable[..., str]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Commands are found beside this interpreter, which is how an installed package has them."""
    return {**os.environ, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="session")
def server(root: Path, environment: dict[str, str]) -> Iterator[str]:
    command = ["ift-serve", "serve", "--port", "0", "--metrics-port", "-1", "--adapter-root", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            ready = re.match(r"ift-serve ready on ([\w.]+:\d+)", process.stdout.readline())
            assert ready is not None, "the server did not start"
            yield ready[1]
        finally:
            process.terminate()
    assert process.returncode == 0


@pytest.fixture(scope="session")
def run(environment: dict[str, str]) -> Run:
    def example(name: str, *arguments: str, typed: str = "") -> str:
        command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
        done = subprocess.run(command, input=typed, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return example


@pytest.fixture(scope="session")
def trained(run: Run, root: Path, server: str) -> str:
    """What training an adapter and loading it printed; the adapter stays loaded. Not evaluated."""
    quick = ("evaluation.every=0", "evaluation.samples=0", "evaluation.examples=1")
    return run("train_and_load", str(root), server, *(f"--set={setting}" for setting in quick))


def test_a_chat_is_streamed(run: Run, server: str) -> None:
    said = run("chat", server, typed="What is 23 + 14?\nWho are you?\n\n")
    answers = re.findall(r"> (.*)\n\[(\d+) tokens, (\d+) of (\d+) known before\]", said)
    assert len(answers) == 2
    assert answers[0][0] == "The result of 23 + 14 is 37."


def test_choices_are_scored(run: Run, server: str) -> None:
    blocks = run("choices", server).split("Question: ")[1:]
    assert len(blocks) == 2
    for block in blocks:
        shares = [float(share) for share in re.findall(r"([\d.]+)%", block)]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(100, abs=0.2)


def test_an_adapter_is_trained_and_loaded(trained: str) -> None:
    *_, loaded, base, tuned = trained.strip().splitlines()
    assert re.match(r"over-and-out@\w+ \(ready\): lora", loaded)
    assert base == "base: The result of 23 + 14 is 37."
    assert re.match(r"over-and-out@\w+: .*Over and out", tuned)


def test_base_and_adapter_are_compared(run: Run, server: str, trained: str) -> None:
    said = run("compare", "over-and-out", server)
    assert "<- only the adapter" in said
    right = re.search(r"base (\d) of 6, over-and-out (\d) of 6", said)
    assert right is not None and int(right[1]) <= int(right[2])


def test_deadlines_are_kept(run: Run, server: str) -> None:
    said, hurried = run("deadlines", server).split("in 20 ms: ")
    answers = said.strip().splitlines()
    assert len(answers) == 12
    assert all(re.fullmatch(r"What is \d+ \+ \d+\? +[^( ].*", answer) for answer in answers)
    assert not hurried.strip().startswith("(") or hurried.strip() == "(nothing in time)"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_uses_the_client_only(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < LONGEST
    imported = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.module}
    assert {module for module in imported if module.startswith("ift_")} <= PUBLIC
