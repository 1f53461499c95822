"""`ift-serve top`: its figures against work that was counted, in terminals of any width."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import subprocess
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest
from rich.console import Console

from ift_serve.cli.scraped_metrics import Scrape, ScrapeError, parse, quantile, rate
from ift_serve.cli.server_state import AdapterLine, Latency, ServerState, server_state
from ift_serve.cli.top import metrics_url
from ift_serve.cli.top_view import view
from ift_serve.client import Client
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.evaluation.serving.event_loop import EventLoopThread
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from tests.cli.test_terminal import IFT_SERVE, Terminal
from tests.support.models import tiny_llama


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address of a server, and of its metrics."""
    model = tiny_llama(tmp_path_factory.mktemp("top"))
    engine = EngineConfig(model=str(model), model_name="tiny", dtype="float32", total_blocks=64, threads=1)
    config = ServerConfig(engine=engine, port=0, metrics_port=0, drain_timeout=5)

    async def start() -> Server:
        server = Server(config, local_engine(engine))
        await server.start()
        return server

    with EventLoopThread() as loop:
        server = loop.run(start())
        yield f"127.0.0.1:{server.port}", f"127.0.0.1:{server.metrics_port}"
        loop.run(server.stop())


def top(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*IFT_SERVE, "top", *options], capture_output=True, text=True, timeout=120)


def test_once_for_programs_tells_what_was_done_while_it_looked(served: tuple[str, str]) -> None:
    address, metrics = served
    looking = subprocess.Popen(
        [*IFT_SERVE, "top", "--server", address, "--metrics", metrics, "--json", "--interval", "0.5"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert looking.stdout is not None
    try:
        first = json.loads(looking.stdout.readline())
        with Client(address) as client:
            client.stream("the fox", max_new_tokens=40, ignore_eos=True, temperature=0).result()
        seen = [first]
        while seen[-1]["first_token"]["p50"] is None:
            seen.append(json.loads(looking.stdout.readline()))
    finally:
        looking.terminate()
    assert first["model"] == "tiny" and first["is_ready"] and first["notes"] == []
    assert first["first_token"] == {"p50": None, "p99": None} and first["generated_tokens_per_second"] == 0
    assert seen[-1]["inter_token"]["p99"] > 0 and seen[-1]["calls_per_second"] > 0
    assert seen[-1]["memory_bytes"]["front"] > 0
    done = top("--server", address, "--metrics", metrics, "--once", "--json", "--interval", "0.1")
    assert done.returncode == 0 and set(json.loads(done.stdout)) == {f.name for f in dataclasses.fields(ServerState)}


def test_a_person_sees_a_table_that_goes_on_until_it_is_left(served: tuple[str, str]) -> None:
    terminal = Terminal("top", "--server", served[0], "--metrics", served[1], "--interval", "0.2")
    terminal.wait_for("generated tokens/s", count=2)
    terminal._process.send_signal(2)
    shown = terminal.end()
    assert "tiny" in shown and "ready" in shown
    piped = top("--server", served[0], "--metrics", served[1], "--interval", "0.1")
    assert piped.returncode == 0 and piped.stdout.count("generated tokens/s") == 1, "in a pipe it looks once"


def test_without_rpcs_the_metrics_are_shown_and_without_metrics_it_says_what_to_do(served: tuple[str, str]) -> None:
    alone = top("--server", "127.0.0.1:9", "--metrics", served[1], "--once", "--json", "--interval", "0.1")
    state = json.loads(alone.stdout)
    assert alone.returncode == 0 and state["is_ready"] and "model and adapters are not known" in state["notes"][0]
    none = top("--server", served[0], "--metrics", "127.0.0.1:9", "--once")
    assert none.returncode == 1 and "metrics at http://127.0.0.1:9/metrics cannot be read" in none.stderr
    wrong = top("--server", served[0], "--metrics", f"http://{served[0]}/metrics", "--once")
    assert wrong.returncode == 1 and "cannot be read" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("server", "given", "url"),
    [
        ("127.0.0.1:50051", None, "http://127.0.0.1:9464/metrics"),
        ("[::1]:50051", None, "http://[::1]:9464/metrics"),
        ("unix:/run/ift", None, "http://127.0.0.1:9464/metrics"),
        ("gpu-7:1", "gpu-7:9000", "http://gpu-7:9000/metrics"),
        ("gpu-7:1", "https://x/m", "https://x/m"),
    ],
)
def test_where_metrics_are_looked_for(server: str, given: str | None, url: str) -> None:
    assert metrics_url(server, given) == url


def state(adapters: int) -> ServerState:
    return ServerState(
        model="some-organisation/some-very-long-name-of-a-model-[bf16]",
        is_ready=True,
        calls_in_flight=1024,
        calls_per_second=1234.5,
        failed_calls_per_second=0.25,
        requests_waiting=512,
        requests_running=256,
        sequences_running=4096,
        cache_share=0.987,
        cache_reusable_share=0.01,
        cache_hit_share=None,
        generated_tokens_per_second=123456.7,
        prompt_tokens_per_second=98765.4,
        queue=Latency(0.1, 60000.0),
        first_token=Latency(None, None),
        inter_token=Latency(9.9, 99.9),
        step=Latency(5.0, 250.0),
        preemptions=123456,
        engine_restarts=2,
        cpu_cores={"front": 0.97, "engine": 15.5},
        memory_bytes={"front": 300 << 20, "engine": 80 << 30},
        adapters=[AdapterLine(f"team-{n}/[x]@{n:032x}", n, "ready", n << 20) for n in range(adapters)],
        notes=["states of adapters are not known: PERMISSION_DENIED: needs the role admin"],
    )


@pytest.mark.parametrize("adapters", [0, 3, 200])
@pytest.mark.parametrize(("width", "height"), [(20, 24), (40, 24), (80, 24), (120, 50), (300, 10)])
def test_it_fits_every_terminal(width: int, height: int, adapters: int) -> None:
    output = io.StringIO()
    console = Console(file=output, width=width, height=height, color_system=None, force_terminal=True)
    console.print(view(state(adapters), width, height))
    lines = output.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    shown = output.getvalue()
    assert "calls in flight"[: width // 2 - 4] in shown
    if width >= 40:
        assert "1024" in shown and "123456.7" in shown and "-" in shown
        counted = re.search(r"and (\d+) more", shown)
        assert shown.count("team-") + (int(counted[1]) if counted else 0) == adapters
    if "team-" in shown and width >= 80:
        assert "[x]@" in shown, "names are no markup"


def test_quantiles_are_those_between_two_looks() -> None:
    registry = CollectorRegistry()
    waits = Histogram("w_seconds", "w", ["kind"], buckets=(1, 2, 4), registry=registry)

    def look(when: float) -> Scrape:
        return parse(generate_latest(registry).decode(), when)

    for seconds in (0.5, 0.5, 0.5):
        waits.labels("a").observe(seconds)
    before = look(0.0)
    assert quantile(None, before, "w_seconds", 0.5) == pytest.approx(0.5)
    assert quantile(before, look(1.0), "w_seconds", 0.5) is None
    for seconds in (1.5, 1.5, 3.0, 3.0):
        waits.labels("b").observe(seconds)
    after = look(2.0)
    assert quantile(before, after, "w_seconds", 0.5) == pytest.approx(2.0)
    assert quantile(before, after, "w_seconds", 0.75) == pytest.approx(3.0)
    assert rate(before, after, "w_seconds_count") == pytest.approx(2.0)
    waits.labels("b").observe(100.0)
    assert quantile(before, look(3.0), "w_seconds", 1.0) == 4.0, "no finite bound is larger"
    assert quantile(before, after, "other", 0.5) is None


def test_counters_that_began_anew_are_not_negative() -> None:
    before, after = parse("# TYPE x counter\nx_total 90\n", 0.0), parse("# TYPE x counter\nx_total 10\n", 2.0)
    assert rate(before, after, "x_total") == 5.0 and rate(after, after, "x_total") == 0.0
    with pytest.raises(ScrapeError):
        parse('x{le="0.5} 3\n{{{', 0.0)
    nothing = server_state(Scrape(0.0), Scrape(1.0))
    assert not nothing.is_ready and nothing.cache_share == 0 and nothing.adapters == []
