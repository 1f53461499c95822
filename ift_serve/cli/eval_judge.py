"""`ift-serve eval judge`: saved answers of two models, compared by a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ift_serve.cli.connect import ClientOptions, Json, connected, fail, readable_errors

if TYPE_CHECKING:
    from ift_serve.evaluation.judging.judge import Judge
    from ift_serve.evaluation.judging.questions import Pair
    from ift_serve.evaluation.judging.run import Judgement


@connected
def judge(
    options: ClientOptions,
    report: Annotated[Path, typer.Argument(help="report.json of a run with both models", exists=True, dir_okay=False)],
    first: Annotated[str | None, typer.Option(help="model of the report; its first without this")] = None,
    second: Annotated[str | None, typer.Option(help="model that it is compared with; the second without this")] = None,
    judge_adapter: Annotated[str, typer.Option(help="adapter of the server that judges; none for its base")] = "",
    judge_url: Annotated[
        str | None, typer.Option(help="endpoint like OpenAI's, up to the version; its key: IFT_SERVE_JUDGE_KEY")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="model of that endpoint")] = None,
    limit: Annotated[int | None, typer.Option(help="prompts of each task, drawn at random", min=1)] = None,
    seed: Annotated[int, typer.Option(help="of what is drawn")] = 0,
    concurrency: Annotated[int, typer.Option(help="pairs that are judged at a time", min=1)] = 8,
    timeout: Annotated[float, typer.Option(help="seconds for a question", min=0.1)] = 300.0,
    output: Annotated[Path | None, typer.Option(help="file of the judgement; beside the report: judge.json")] = None,
    as_json: Json = False,
) -> None:
    """Ask a model which of two answers is more relevant, more faithful and, over turns, more coherent.

    The judge is a model behind a server (--server, --judge-adapter) or an endpoint (--judge-url, --judge-model). Each
    pair is asked about in both orders; a judge that contradicts itself has said "tie". Nothing of it goes into the
    verifiable scores.
    """
    import json

    from ift_serve.evaluation.judging.run import pairs_of, report_of
    from ift_serve.evaluation.reporting.document import read_document, rows_of, write_document

    with evaluation_errors():
        document = read_document(report)
        one, other = _models(document["models"], first, second)
        pairs = pairs_of(rows_of(document, report), one, other, limit, seed)
        if not pairs:
            raise ValueError(f"{report}: no prompt was answered by both {one} and {other}")
        name, judgements = _judged(options, pairs, judge_adapter, judge_url, judge_model, timeout, seed, concurrency)
        found = report_of(name, one, other, judgements)
        write_document(found, output or report.with_name("judge.json"))
    if as_json:
        print(json.dumps({key: value for key, value in found.items() if key != "judgements"}))
    else:
        _show(found, output or report.with_name("judge.json"))


def _models(models: list[str], first: str | None, second: str | None) -> tuple[str, str]:
    """The two models of a report; a name without a version stands for the one that it begins. Raises ValueError."""
    chosen = [first or models[0], second or (models[1] if len(models) > 1 else "")]
    found = []
    for name in chosen:
        fitting = [model for model in models if name and (model == name or model.partition("@")[0] == name)]
        if not fitting:
            raise ValueError(f"no model {name!r} in the report; there are {', '.join(models)}")
        found.append(fitting[0])
    if found[0] == found[1]:
        raise ValueError("--first, --second: name two different models")
    return found[0], found[1]


def _judged(
    options: ClientOptions,
    pairs: list[Pair],
    adapter: str,
    url: str | None,
    model: str | None,
    timeout: float,
    seed: int,
    concurrency: int,
) -> tuple[str, list[Judgement]]:
    import asyncio

    from ift_serve.client import AsyncClient
    from ift_serve.evaluation.judging.judge import EndpointJudge, ServedJudge, environment_key
    from ift_serve.evaluation.judging.run import judge_pairs

    async def ask() -> tuple[str, list[Judgement]]:
        chosen: Judge
        if url is None:
            client = AsyncClient(options.server, **options.arguments())
            chosen = ServedJudge(client, (await client.model()).name, adapter, timeout)
        elif model is None:
            raise ValueError("--judge-model: name the model of the endpoint")
        else:
            chosen = EndpointJudge(url, model, environment_key(), timeout)
        try:
            return chosen.name, await judge_pairs(chosen, pairs, seed=seed, concurrency=concurrency)
        finally:
            await chosen.close()

    return asyncio.run(ask())


def _show(found: dict[str, Any], path: Path) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{found['second']} beside {found['first']}")
    for head in ("task", "criterion", "judged", "won, tied, lost", "win rate", "95 %", "orders agree", "same again"):
        table.add_column(head, overflow="fold")
    for score in found["scores"]:
        table.add_row(
            score["task"],
            score["criterion"],
            f"{score['judged']}/{score['pairs']}",
            f"{score['won']}, {score['ties']}, {score['lost']}",
            f"{score['win_rate']:.1%}" if score["judged"] else "-",
            f"{100 * score['low']:.1f}-{100 * score['high']:.1f}" if score["judged"] else "-",
            _share(score["order_agreement"]),
            _share(score["self_agreement"]),
        )
    console = Console()
    console.print(table)
    console.print(f"judged by {found['judge']}: {path}", soft_wrap=True)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


@contextlib.contextmanager
def evaluation_errors() -> Iterator[None]:
    """Errors of evaluations, files and servers without a traceback."""
    from ift_serve.checks.errors import MissingExtraError
    from ift_serve.evaluation.errors import EvaluationError

    with readable_errors():
        try:
            yield
        except (EvaluationError, MissingExtraError) as error:
            raise fail(str(error)) from error
