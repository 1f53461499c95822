"""`ift-serve demo`: a server on the embedded model, several callers at once, and what they got."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ift_serve.cli.connect import Json, fail
from ift_serve.cli.demo_loop import NAME, Loop, ask_and_judge, constraint_examples, load_beside_requests, train
from ift_serve.cli.demo_report import write_demo_report

if TYPE_CHECKING:
    from rich.console import Console

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
    import asyncio

    from ift_serve.client import AsyncClient

    answers = [Answer(instruction, context) for instruction, context in _PROMPTS]
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        await asyncio.gather(*(_ask(client, answer) for answer in answers))
    return answers


def _start(log: Path, root: Path) -> tuple[subprocess.Popen[str], int]:
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
        "--adapter-root",
        str(root),
    ]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ})
    assert process.stdout is not None
    line = process.stdout.readline()
    if "ready on" not in line:
        process.wait()
        raise fail(f"the server did not start:\n{log.read_text()}")
    return process, int(line.split("ready on ")[1].split(",")[0].rsplit(":", 1)[1])


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="answers only; train no adapter")] = False,
    examples: Annotated[int, typer.Option(help="test requests of each family", min=1)] = 40,
    report: Annotated[Path | None, typer.Option(help="directory of the report; a new temporary one")] = None,
    as_json: Json = False,
) -> None:
    """Serve the embedded model; answer several callers; score it, train an adapter, load it, score again; report."""
    import asyncio

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        root = Path(folder) / "adapters"
        root.mkdir()
        process, port = _start(Path(folder) / "server.log", root)
        started = time.perf_counter() - begun
        loop: Loop | None = None
        try:
            begun = time.perf_counter()
            answers = asyncio.run(_ask_all(port))
            seconds = time.perf_counter() - begun
            if not as_json:
                _show(answers, started, seconds)
            if not quick:
                report = report or Path(tempfile.mkdtemp(prefix="ift-serve-demo-"))
                loop = _run_loop(port, root, examples, report, quiet=as_json)
        except RuntimeError as error:
            raise fail(str(error)) from None
        finally:
            process.terminate()
            code = process.wait()
    if as_json:
        found = {"start_seconds": started, "seconds": seconds, "answers": [asdict(a) for a in answers]}
        print(json.dumps(found | ({} if loop is None else {"loop": loop.to_json(), "report": str(report)})))
    silent = [a.instruction for a in answers if not a.text.strip() or a.finish_reason != "eos"]
    if silent:
        raise fail(f"no whole answer to: {silent[0]}")
    if code != 0:
        raise fail(f"the server ended with code {code}")


def _run_loop(port: int, root: Path, count: int, report: Path, *, quiet: bool) -> Loop:
    """Score, train, load, score, report; with tables unless ``quiet``."""
    import asyncio

    from rich.console import Console

    console = Console(quiet=quiet)
    loop = Loop(constraint_examples(count))
    families = len(loop.families())
    console.print(f"\n[bold]1.[/] {count} test requests of each of {families} constraint families, to the base model")
    _score(port, loop, "", console)
    console.print("[bold]2.[/] An adapter, trained on the training split of the same families")
    begun = time.perf_counter()
    train(root / NAME, quiet=quiet)
    loop.seconds["train"] = time.perf_counter() - begun
    console.print("[bold]3.[/] Loaded into the running server, while callers go on asking it")
    asyncio.run(_load(port, loop))
    console.print(
        f"   {NAME}@{loop.version} in {1e3 * loop.seconds['load']:.0f} ms; "
        f"{loop.served_while_loading} requests answered meanwhile"
    )
    console.print("[bold]4.[/] The same requests, to the adapter")
    _score(port, loop, NAME, console)
    _show_loop(loop, console)
    console.print("[bold]5.[/] Both on the task adherence: instructions whose combinations no training has seen")
    begun = time.perf_counter()
    write_demo_report(port, NAME, report, console)
    loop.seconds["report"] = time.perf_counter() - begun
    console.print(
        f"Everything took {sum(loop.seconds.values()):.0f} s, of which the training {loop.seconds['train']:.0f} s. "
        "Scores, comparison and every answer are in this page:"
    )
    console.print(f"  {(report / 'report.html').absolute()}", soft_wrap=True)
    return loop


async def _load(port: int, loop: Loop) -> None:
    from ift_serve.client import AsyncClient

    async with AsyncClient(f"127.0.0.1:{port}") as client:
        await load_beside_requests(client, loop, NAME)


def _score(port: int, loop: Loop, adapter: str, console: Console) -> None:
    import asyncio

    from rich.progress import Progress

    from ift_serve.client import AsyncClient

    async def run(tick: Callable[[], None]) -> list[bool]:
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            return await ask_and_judge(client, loop.examples, adapter, tick)

    begun = time.perf_counter()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("scoring", total=len(loop.examples))
        loop.passed[adapter] = asyncio.run(run(lambda: progress.advance(task)))
    loop.seconds[f"score {adapter or 'base'}"] = time.perf_counter() - begun


def _show_loop(loop: Loop, console: Console) -> None:
    from rich.table import Table

    table = Table(
        "family", "base, %", "adapter, %", "gain", "now right", "now wrong", title="answers that the checkers pass"
    )
    for family in loop.families():
        base, adapter = loop.share("", family), loop.share(NAME, family)
        gained, lost = loop.turned(family)
        table.add_row(family, f"{base:.0f}", f"{adapter:.0f}", f"{adapter - base:+.0f}", str(gained), str(lost))
    gained, lost = loop.turned()
    base, adapter = loop.mean(""), loop.mean(NAME)
    table.add_section()
    table.add_row("all", f"{base:.1f}", f"{adapter:.1f}", f"{adapter - base:+.1f}", str(gained), str(lost))
    console.print(table)


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
