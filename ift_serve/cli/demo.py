"""`ift-serve demo`: a server on the embedded model, several callers at once, and what they got."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from ift_serve.cli.connect import Json, fail

_PROMPTS = (
    ("Sort these words alphabetically.", "table, apple, horse"),
    ("What is the job of Anna?", "Anna lives in Lisbon. Anna works as a baker. Ben works as a pilot."),
    ("Write this in capital letters.", "quiet green river"),
    ("What colour is the lamp?", "item | colour | price\nlamp | blue | 42\nchair | red | 17"),
    ("Reverse the order of the words.", "moon star cloud"),
    ("What is 23 + 14?", ""),
    ("Kate has 12 apples. Kate buys 6 more and gives 5 to Will. How many apples does Kate have now?", ""),
    ("Who are you?", ""),
    ("Tell a story about Clara. Use the words boat and fox.", ""),
)


@dataclass
class Answer:
    """What one caller saw."""

    instruction: str
    context: str
    text: str = ""
    pieces: int = 0
    first_ms: float = 0.0
    tokens: int = 0
    finish_reason: str = ""


async def _ask(client: object, answer: Answer) -> None:
    from ift_serve.client import AsyncClient, Prompt

    assert isinstance(client, AsyncClient)
    prompt = Prompt(instruction=answer.instruction, context=answer.context)
    begun = time.perf_counter()
    stream = client.stream(prompt, temperature=0.0, max_new_tokens=96)
    async for piece in stream:
        if piece.text and not answer.pieces:
            answer.first_ms = round(1e3 * (time.perf_counter() - begun), 1)
        answer.pieces += bool(piece.text)
    result = await stream.result()
    answer.text, answer.tokens = result.text, result.usage.generated_tokens
    answer.finish_reason = result.finish_reason


async def _ask_all(port: int) -> list[Answer]:
    from ift_serve.client import AsyncClient

    answers = [Answer(instruction, context) for instruction, context in _PROMPTS]
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        await asyncio.gather(*(_ask(client, answer) for answer in answers))
    return answers


def _start(log: Path) -> tuple[subprocess.Popen[str], int]:
    """A server process on a free port; returns once it says that it is ready."""
    command = [
        sys.executable,
        "-c",
        "from ift_serve.cli import main; main()",
        "serve",
        "--port",
        "0",
        "--metrics-port",
        "0",
    ]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ})
    assert process.stdout is not None
    line = process.stdout.readline()
    if "ready on" not in line:
        process.wait()
        raise fail(f"the server did not start:\n{log.read_text()}")
    return process, int(line.split("ready on ")[1].split(",")[0].rsplit(":", 1)[1])


def demo(as_json: Json = False) -> None:
    """Start a server on the embedded model, stream answers to several callers at once, show what they got."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        process, port = _start(Path(folder) / "server.log")
        started = time.perf_counter() - begun
        try:
            begun = time.perf_counter()
            answers = asyncio.run(_ask_all(port))
            seconds = time.perf_counter() - begun
        finally:
            process.terminate()
            code = process.wait()
    if as_json:
        print(json.dumps({"start_seconds": started, "seconds": seconds, "answers": [asdict(a) for a in answers]}))
    else:
        _show(answers, started, seconds)
    silent = [a.instruction for a in answers if not a.text.strip() or a.finish_reason != "eos"]
    if silent:
        raise fail(f"no whole answer to: {silent[0]}")
    if code != 0:
        raise fail(f"the server ended with code {code}")


def _show(answers: list[Answer], started: float, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("instruction", "answer", "pieces", "first, ms", show_lines=True)
    for answer in answers:
        asked = f"{answer.instruction}\n[dim]{answer.context}[/dim]" if answer.context else answer.instruction
        table.add_row(asked, answer.text, str(answer.pieces), f"{answer.first_ms:.0f}")
    console = Console()
    console.print(table)
    total = sum(a.tokens for a in answers)
    console.print(
        f"Server up in {started:.1f} s; {len(answers)} callers at once, {total} tokens in {seconds:.2f} s. "
        f"Start your own: [bold]ift-serve serve[/bold], then [bold]ift-serve chat[/bold]."
    )


if __name__ == "__main__":
    typer.run(demo)
