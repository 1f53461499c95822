"""`ift-serve eval`: how well what a server serves follows instructions; `eval compare` for saved runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ift_serve.cli.connect import ClientOptions, Json, connected, fail
from ift_serve.cli.eval_harness import ask_harness, harness_table, split_names
from ift_serve.cli.eval_judge import evaluation_errors, judge
from ift_serve.cli.eval_on_server import run_on_server

if TYPE_CHECKING:
    from ift_serve.evaluation.run import Plan, Progress, Result

app = typer.Typer(help="Evaluate a running server.", invoke_without_command=True)
_EXIT_NOT_GOOD_ENOUGH = 2
_LOG_SECONDS = 30.0
"""Between two lines of progress where there is no terminal."""
FailUnder = Annotated[
    float | None, typer.Option(help="exit with 2 if a model keeps a smaller share of a task's prompts", min=0, max=1)
]


@connected
def evaluate(
    options: ClientOptions,
    context: typer.Context,
    target: Annotated[str | None, typer.Option(help="host:port of the server; the same as --server")] = None,
    adapter: Annotated[list[str] | None, typer.Option(help="base, name or name@version; may be repeated")] = None,
    tasks: Annotated[
        str,
        typer.Option(
            help="adherence, unseen, density, reliable@K, ifeval, ifbench, multi_if, gsm8k, mt_bench, perplexity, or "
            "any of lm-eval's; lm_eval:NAME is lm-eval's where both have one"
        ),
    ] = "adherence",
    include_path: Annotated[
        Path | None, typer.Option(help="folder of lm-eval's task files, which come before its own", file_okay=False)
    ] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="tasks of lm-eval: prompts as conversations")
    ] = False,
    num_fewshot: Annotated[int | None, typer.Option(help="tasks of lm-eval: examples in the prompt", min=0)] = None,
    data: Annotated[list[str] | None, typer.Option(help="local file of a task: TASK=FILE; may be repeated")] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="directory of an adapter, for what it was trained on: ADAPTER=DIR; may be repeated"),
    ] = None,
    repeats: Annotated[int, typer.Option(help="samples of each prompt", min=1)] = 1,
    limit: Annotated[int | None, typer.Option(help="prompts of each task at most", min=1)] = None,
    seed: Annotated[int, typer.Option(help="of everything that is drawn")] = 0,
    decoding: Annotated[
        list[str] | None, typer.Option(help="a setting, as temperature=0.7 or reasoning=trace:256; may be repeated")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="requests in flight; twice the server's batch", min=1)] = None,
    timeout: Annotated[float, typer.Option(help="seconds for a request", min=0.1)] = 300.0,
    on_server: Annotated[
        bool,
        typer.Option("--on-server", help="the server asks itself; needs the role admin, keeps nothing to go on with"),
    ] = False,
    report: Annotated[Path, typer.Option(help="directory of the report, and of what a killed run goes on with")] = Path(
        "evaluation"
    ),
    fail_under: FailUnder = None,
    no_regression_against: Annotated[
        Path | None, typer.Option(help="report.json whose scores must be reached", exists=True, dir_okay=False)
    ] = None,
    slack: Annotated[float, typer.Option(help="share that may be lost without being a regression", min=0)] = 0.0,
    as_json: Json = False,
) -> None:
    """Ask a server everything that tasks hold, judge the answers, and compare models. Greedy unless told otherwise."""
    if context.invoked_subcommand is not None:
        return
    from ift_serve.evaluation.harness.lm_eval_tasks import HarnessPlan, load_tasks, metrics_of
    from ift_serve.evaluation.harness.result_files import write_result_files
    from ift_serve.evaluation.reporting.document import document, read_document

    address = target or options.server
    with evaluation_errors():
        before = None if no_regression_against is None else read_document(no_regression_against)
        given = _decoding(decoding)
        if on_server:
            found = run_on_server(
                address, options.arguments(), _names(tasks), _pairs(data, "data"), _shown(quiet=as_json),
                adapters=adapter or ["base"], repeats=repeats, limit=limit or 0, seed=seed, decoding=given,
                concurrency=concurrency or 0, request_timeout=timeout,
            )  # fmt: skip
            _deliver(found, report, as_json)
            _judge(found, fail_under, before, slack)
            return
        files = {name.replace("-", "_"): Path(path) for name, path in _pairs(data, "data").items()}
        own, others = split_names(tasks, files, include_path)
        plan = _plan(own, files, adapter or ["base"], given, repeats, seed, limit, recipe or [])
        harness = HarnessPlan(others, include_path, limit, apply_chat_template, num_fewshot, seed)
        loaded = load_tasks(harness) if others else None
        result = _run(address, options, plan, report, concurrency, timeout, quiet=as_json)
        answered: dict[str, dict[str, Any]] = {}
        if loaded is not None:
            arguments = options.arguments() | given | {"timeout": timeout, "concurrency": concurrency}
            rows, answered = ask_harness(address, arguments, loaded, harness, result.models, report)
            result.rows.extend(rows)
        found = document(result, plan) | {"lm_eval": {model: metrics_of(values) for model, values in answered.items()}}
        _deliver(found, report, as_json)
        write_result_files(found, result.rows, report / "lm_eval", answered)
    _judge(found, fail_under, before, slack)


app.callback()(evaluate)
app.command("judge")(judge)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="report.json of one run", exists=True, dir_okay=False)],
    second: Annotated[Path, typer.Argument(help="report.json of another", exists=True, dir_okay=False)],
    report: Annotated[Path | None, typer.Option(help="directory for a report of the comparison")] = None,
    as_json: Json = False,
) -> None:
    """Compare two saved runs on the prompts that both asked: the second minus the first."""
    from ift_serve.evaluation.reporting.document import merged

    with evaluation_errors():
        _deliver(merged(first, second), report, as_json)


@app.command()
def register(
    remove: Annotated[bool, typer.Option("--remove", help="undo it")] = False,
) -> None:
    """Make `lm_eval --model ift-serve` work in this environment: lm-eval looks at no entry points by itself."""
    from ift_serve.evaluation.harness.start_file import remove_start_file, write_start_file

    try:
        path = remove_start_file() if remove else write_start_file()
    except OSError as error:
        raise fail(f"{error.filename}: {error.strerror}") from None
    typer.echo(f"{'removed' if remove else 'written'}: {path}")


def _plan(
    tasks: list[str],
    files: dict[str, Path],
    adapters: list[str],
    decoding: dict[str, Any],
    repeats: int,
    seed: int,
    limit: int | None,
    recipes: list[str],
) -> Plan:
    from ift_serve.evaluation.exposure import read_trained_on
    from ift_serve.evaluation.run import Plan
    from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
    from ift_serve.evaluation.tasks.registry import build_task

    settings = DecodingSettings.read({"temperature": 0.0} | decoding)
    trained_on = {name: read_trained_on(Path(path)) for name, path in (_pair(text, "recipe") for text in recipes)}
    return Plan([build_task(name, files) for name in tasks], adapters, settings, repeats, seed, limit, trained_on)


def _names(tasks: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in tasks.split(",") if name.strip()))


def _decoding(given: list[str] | None) -> dict[str, Any]:
    return {name: _value(text) for name, text in _pairs(given, "decoding").items()}


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    return dict(_pair(text, option) for text in given or [])


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name or not value:
        raise ValueError(f"--{option} {text}: write NAME=VALUE")
    return name, value


def _value(text: str) -> Any:
    """A number, a truth value, a list or an object where it reads as JSON, else the text itself."""
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text


def _run(
    target: str, options: ClientOptions, plan: Plan, report: Path, concurrency: int | None, timeout: float, quiet: bool
) -> Result:
    import asyncio

    from ift_serve.client import AsyncClient
    from ift_serve.evaluation.run import evaluate
    from ift_serve.evaluation.serving.result_store import ResultStore

    async def ask(show: Callable[[Progress], None]) -> Result:
        async with AsyncClient(target, retries=0, **options.arguments()) as client:
            with ResultStore(report / "results.sqlite") as store:
                return await evaluate(client, plan, store, concurrency=concurrency, timeout=timeout, shown=show)

    with _shown(quiet=quiet) as show:
        try:
            return asyncio.run(ask(show))
        except KeyboardInterrupt:
            raise fail("interrupted; what was answered is kept, the same command again asks for the rest") from None


@contextlib.contextmanager
def _shown(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Shows progress: a table that changes on a terminal, a line now and then in a log, nothing to programs."""
    import time

    from rich.console import Console
    from rich.live import Live

    from ift_serve.evaluation.reporting.tables import live_table, progress_line

    console = Console(stderr=True)
    if quiet:
        yield lambda progress: None
        return
    latest: list[Progress] = []
    told = time.monotonic()

    def in_log(progress: Progress) -> None:
        nonlocal told
        if time.monotonic() - told >= _LOG_SECONDS:
            told = time.monotonic()
            typer.echo(progress_line(progress), err=True)

    if not console.is_terminal:
        yield in_log
        return
    # Drawn by the display's own clock, not for every answer.
    with Live(console=console, refresh_per_second=4, get_renderable=lambda: live_table(latest[0]) if latest else ""):
        yield lambda progress: latest.__setitem__(slice(None), [progress])


def _deliver(found: dict[str, Any], report: Path | None, as_json: bool) -> None:
    """Write the report, and print it for people or programs."""
    import json

    from rich.console import Console

    from ift_serve.evaluation.reporting.breakdown_tables import breakdown_tables
    from ift_serve.evaluation.reporting.document import write_document
    from ift_serve.evaluation.reporting.page import write_page
    from ift_serve.evaluation.reporting.tables import comparison_table, failure_lines, score_table

    if report is not None:
        write_document(found, report / "report.json")
        write_page(found, report / "report.html")
    if as_json:
        print(json.dumps({name: value for name, value in found.items() if name != "rows"}))
        return
    console = Console()
    if found["coverage"]:
        console.print(score_table(found))
    if found.get("lm_eval"):
        console.print(harness_table(found["lm_eval"]))
    for table in breakdown_tables(found):
        console.print(table)
    for note in found.get("notes", ()):
        typer.secho(note, fg="yellow", err=True)
    for line in failure_lines(found):
        typer.secho(line, fg="yellow", err=True)
    if found["comparisons"]:
        console.print(comparison_table(found))
    if report is not None:
        console.print(f"report: {report / 'report.html'}", soft_wrap=True)


def _judge(found: dict[str, Any], fail_under: float | None, before: dict[str, Any] | None, slack: float) -> None:
    from ift_serve.evaluation.reporting.verdict import problems

    said = problems(found, fail_under, before, slack)
    for line in said:
        typer.secho(line, fg="red", err=True)
    if said:
        raise typer.Exit(_EXIT_NOT_GOOD_ENOUGH)
