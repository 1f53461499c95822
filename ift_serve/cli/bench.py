"""`ift-serve bench`: load a running server and report what its callers saw."""

from __future__ import annotations

import json
import random
import statistics
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from ift_serve.cli.connect import ClientOptions, Json, connected, readable_errors

if TYPE_CHECKING:
    from ift_serve.client import AsyncClient


@dataclass(frozen=True)
class Request:
    """What one caller asks for."""

    token_ids: tuple[int, ...]
    new_tokens: int
    adapter: str = ""


@dataclass(frozen=True)
class Seen:
    """Times of one answer, in seconds since it was asked for."""

    first: float
    last: float
    tokens: int


@dataclass(frozen=True)
class Report:
    """Percentiles in milliseconds, rates over the whole run."""

    requests: int
    concurrency: int
    seconds: float
    generated_tokens: int
    tokens_per_second: float
    requests_per_second: float
    first_token_p50: float
    first_token_p99: float
    inter_token_p50: float
    inter_token_p99: float


def plan(
    count: int, prompt: tuple[int, int], output: tuple[int, int], vocabulary: int, context: int, seed: int
) -> list[Request]:
    """Seeded requests of random token ids, cut to the context."""
    rng = random.Random(seed)
    requests = []
    for _ in range(count):
        length = min(rng.randint(*prompt), context - 2)
        ids = tuple(rng.randrange(vocabulary // 8, vocabulary) for _ in range(length))
        requests.append(Request(ids, max(1, min(rng.randint(*output), context - length))))
    return requests


def percentile(values: list[float], share: float) -> float:
    """The nearest-rank percentile; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def _ask(client: AsyncClient, request: Request, gaps: list[float]) -> Seen:
    """One streamed answer, timed by its tokens."""
    from ift_serve.client import Prompt

    begun = time.perf_counter()
    first = last = 0.0
    stream = client.stream(
        Prompt.from_tokens(request.token_ids),
        max_new_tokens=request.new_tokens,
        temperature=0.0,
        ignore_eos=True,
        tokens=True,
        adapter=request.adapter,
        timeout=600,
    )
    async for piece in stream:
        now = time.perf_counter() - begun
        if piece.tokens:
            if last:
                gaps.extend([(now - last) / len(piece.tokens)] * len(piece.tokens))
            first, last = first or now, now
    return Seen(first, last, (await stream.result()).usage.generated_tokens)


async def _ask_whole(client: AsyncClient, request: Request) -> Seen:
    """One whole answer; the time to the first token is the server's."""
    from ift_serve.client import Prompt

    begun = time.perf_counter()
    answer = await client.generate(
        Prompt.from_tokens(request.token_ids),
        max_new_tokens=request.new_tokens,
        temperature=0.0,
        ignore_eos=True,
        adapter=request.adapter,
        timeout=600,
    )
    return Seen(answer.usage.first_token_seconds, time.perf_counter() - begun, answer.usage.generated_tokens)


async def run(client: AsyncClient, requests: list[Request], concurrency: int, *, whole: bool = False) -> Report:
    """Send all requests, ``concurrency`` at a time, streaming or for ``whole`` answers."""
    import asyncio

    gate, gaps = asyncio.Semaphore(concurrency), list[float]()

    async def one(request: Request) -> Seen:
        async with gate:
            return await (_ask_whole(client, request) if whole else _ask(client, request, gaps))

    begun = time.perf_counter()
    seen = await asyncio.gather(*(one(r) for r in requests))
    seconds = time.perf_counter() - begun
    tokens = sum(s.tokens for s in seen)
    firsts = [s.first for s in seen]
    return Report(
        len(requests),
        concurrency,
        round(seconds, 3),
        tokens,
        round(tokens / seconds, 1),
        round(len(requests) / seconds, 2),
        round(1e3 * statistics.median(firsts), 2),
        round(1e3 * percentile(firsts, 0.99), 2),
        round(1e3 * percentile(gaps, 0.5), 2),
        round(1e3 * percentile(gaps, 0.99), 2),
    )


@connected
def bench(
    options: ClientOptions,
    requests: Annotated[int, typer.Option(help="requests in all", min=1)] = 64,
    concurrency: Annotated[int, typer.Option(help="requests at once", min=1)] = 8,
    prompt_tokens: Annotated[tuple[int, int], typer.Option(help="shortest and longest prompt")] = (16, 128),
    output_tokens: Annotated[tuple[int, int], typer.Option(help="shortest and longest answer")] = (16, 64),
    adapter: Annotated[
        list[str] | None, typer.Option(help="adapter to answer with; may be repeated: requests take turns")
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="ask for whole answers instead of streams")] = False,
    seed: Annotated[int, typer.Option()] = 0,
    as_json: Json = False,
) -> None:
    """Measure a running server with seeded random prompts, end-of-answer tokens ignored."""
    import asyncio

    from ift_serve.client import AsyncClient

    for name, (low, high) in (("prompt-tokens", prompt_tokens), ("output-tokens", output_tokens)):
        if not 1 <= low <= high:
            raise typer.BadParameter(f"--{name}: {low} {high} is not a range of positive numbers")

    async def measure() -> Report:
        async with AsyncClient(options.server, **options.arguments()) as client:
            model = await client.model()
            planned = plan(requests, prompt_tokens, output_tokens, model.vocabulary_size, model.context_length, seed)
            if adapter:
                planned = [replace(r, adapter=adapter[i % len(adapter)]) for i, r in enumerate(planned)]
            return await run(client, planned, concurrency, whole=whole)

    with readable_errors():
        report = asyncio.run(measure())
    if as_json:
        print(json.dumps(asdict(report)))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "value")
    for name, value in asdict(report).items():
        unit = " ms" if name.endswith(("p50", "p99")) else ""
        table.add_row(name.replace("_", " "), f"{value:,}{unit}")
    Console().print(table)
