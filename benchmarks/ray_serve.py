"""What Ray Serve's ingress costs beside one bare server, what a second replica brings, and how often adapters are read.

``python benchmarks/ray_serve.py --json``. A Ray cluster of this machine, started here; every engine has one thread. The
bare server and the deployment answer the same requests in turns. It is no ray.py: that would be taken for Ray itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HERE = Path(sys.executable).parent
_PORT, _GCS = 9471, 6471
_OBJECT_STORE = 100_000_000
_QUICK = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="none: the embedded model")
    parser.add_argument("--parts", default="overhead,python,replicas,adapters", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=100, help="of one caller, a round")
    parser.add_argument("--tokens", type=int, default=64, help="of one answer of several callers")
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--resident", type=int, default=4, help="adapters in one replica's memory")
    parser.add_argument("--requests", type=int, default=400, help="that name an adapter")
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


def model_of(options: argparse.Namespace) -> str:
    """The directory of the served model."""
    from ift_serve.embedded import model_path

    return str(options.model or model_path())


@contextlib.contextmanager
def bare(options: argparse.Namespace) -> Iterator[str]:
    """The address of a server of our own port."""
    command = [str(_HERE / "ift-serve"), "serve", model_of(options), "--port", "0", "--metrics-port", "-1"]
    process = subprocess.Popen(
        [*command, "--threads", "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[3].rstrip(",")
    finally:
        process.terminate()
        process.wait(60)


class Cluster:
    """A Ray cluster of one node, and what is deployed on it."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._environment = os.environ | _QUICK
        self.address = f"127.0.0.1:{_PORT}"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While it runs."""
        command = [
            "start",
            "--head",
            "--block",
            "--port",
            str(_GCS),
            "--node-ip-address",
            "127.0.0.1",
            "--num-cpus",
            "4",
        ]
        command += ["--object-store-memory", str(_OBJECT_STORE), "--include-dashboard=false", "--disable-usage-stats"]
        with (self._folder / "ray.log").open("wb") as log:
            process = subprocess.Popen([str(_HERE / "ray"), *command], env=self._environment, stdout=log, stderr=log)
        try:
            while b"Ray runtime started" not in (self._folder / "ray.log").read_bytes():
                assert process.poll() is None, (self._folder / "ray.log").read_text()[-2000:]
                time.sleep(0.1)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def deploy(self, *, engine: dict[str, Any] | None = None, roots: list[str] | None = None, **settings: Any) -> str:
        """Put replicas on it, or change them; which ingress they are behind."""
        import yaml

        chosen = {"model": model_of(self._options), "threads": 1, **(engine or {})}
        server = {"engine": chosen, "adapter_roots": roots or [], "log_level": "warning"}
        path = self._folder / "deploy.yaml"
        path.write_text(
            yaml.safe_dump(
                {"address": f"127.0.0.1:{_GCS}", "port": _PORT, "http_port": _PORT + 1, "server": server, **settings}
            )
        )
        done = subprocess.run(
            [str(_HERE / "ift-serve"), "deploy", "ray", str(path), "--json"],
            env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(done.stderr)
        return str(json.loads(done.stdout.splitlines()[-1])["ingress"])

    def counts(self) -> list[dict[str, float]]:
        """Of each replica."""
        program = (
            f"import json, ray; from ray import serve; ray.init(address='127.0.0.1:{_GCS}', log_to_driver=False); "
            "print(json.dumps(serve.get_deployment_handle('engine', 'ift-serve').broadcast('counts').results()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], env=self._environment, capture_output=True, text=True, check=True
        )
        found: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
        return found


class Caller:
    """Asks one address."""

    def __init__(self, address: str, options: argparse.Namespace) -> None:
        from ift_serve.client import AsyncClient

        self.client = AsyncClient(address, timeout=120)
        self._options = options

    async def alone(self) -> dict[str, float]:
        """Milliseconds of one caller: a whole answer of one token, a stream's first token, and a token of it."""
        whole, first, gap = [], [], []
        for number in range(self._options.calls):
            begun = time.perf_counter()
            await self.client.generate(f"Say {number}", temperature=0.0, max_new_tokens=1, ignore_eos=True)
            whole.append(time.perf_counter() - begun)
        for number in range(self._options.calls // 4):
            begun, times = time.perf_counter(), []
            async for _ in self.client.stream(f"Say {number}", temperature=0.0, max_new_tokens=16, ignore_eos=True):
                times.append(time.perf_counter())
            first.append(times[0] - begun)
            gap.append((times[-1] - times[0]) / max(1, len(times) - 1))
        names = {"one_token_ms": whole, "first_token_ms": first, "token_ms": gap}
        return {name: 1e3 * statistics.median(values) for name, values in names.items()}

    async def together(self, callers: int, *, streams: bool) -> float:
        """Tokens a second of several callers."""
        tokens, each = self._options.tokens, 4

        async def ask(number: int) -> None:
            for turn in range(each):
                prompt = f"Tell {number} of {turn}"
                settings: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": tokens, "ignore_eos": True}
                if streams:
                    await self.client.stream(prompt, **settings).result()
                else:
                    await self.client.generate(prompt, **settings)

        begun = time.perf_counter()
        await asyncio.gather(*(ask(number) for number in range(callers)))
        return float(callers * each * tokens / (time.perf_counter() - begun))


async def beside(options: argparse.Namespace, addresses: dict[str, str]) -> dict[str, dict[str, float]]:
    """Medians over rounds of what each address takes, in turns."""
    callers = {name: Caller(address, options) for name, address in addresses.items()}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in callers}
    for caller in callers.values():
        await caller.together(options.callers, streams=True)  # not measured: connections, caches
    for _ in range(options.rounds):
        for name, caller in callers.items():
            round_: dict[str, float] = await caller.alone()
            round_["streams_tokens_per_second"] = await caller.together(options.callers, streams=True)
            round_["whole_tokens_per_second"] = await caller.together(options.callers, streams=False)
            for key, value in round_.items():
                found[name].setdefault(key, []).append(value)
    for caller in callers.values():
        await caller.client.close()
    return {
        name: {key: round(statistics.median(values), 3) for key, values in rounds.items()}
        for name, rounds in found.items()
    }


def overhead(options: argparse.Namespace, folder: Path, ingress: str) -> dict[str, Any]:
    """One replica behind an ingress, in turns with a bare server."""
    cluster = Cluster(options, folder)
    with cluster.running(), bare(options) as address:
        used = cluster.deploy(ingress=ingress, replicas=1)
        return {"ingress": used, **asyncio.run(beside(options, {"bare": address, "ray": cluster.address}))}


def replicas(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Tokens a second of twice the callers, with one replica and with two, in turns."""
    cluster = Cluster(options, folder)
    found: dict[int, list[float]] = {1: [], 2: []}

    async def measure() -> float:
        caller = Caller(cluster.address, options)
        await caller.together(2 * options.callers, streams=False)
        rate = await caller.together(2 * options.callers, streams=False)
        await caller.client.close()
        return rate

    with cluster.running():
        for _ in range(max(1, options.rounds // 2)):
            for number in found:
                cluster.deploy(replicas=number)
                while len(cluster.counts()) != number:
                    time.sleep(0.5)
                found[number].append(asyncio.run(measure()))
    return {f"{number}_tokens_per_second": round(statistics.median(rates), 1) for number, rates in found.items()}


def adapters(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """How often an adapter is in memory when a request comes, with affinity and without, and the requests' time."""
    from adapters import write_adapter

    from ift_serve.modeling.adapter_format.base import BaseMetadata

    root = folder / "adapters"
    metadata = BaseMetadata.of_directory(Path(model_of(options)))
    for number in range(options.adapters):
        write_adapter(root / str(number), metadata, 16, number)
    found: dict[str, Any] = {"adapters": options.adapters, "in_memory_of_a_replica": options.resident, "replicas": 2}
    for affinity in (True, False):
        cluster = Cluster(options, folder)
        with cluster.running():
            cluster.deploy(replicas=2, affinity=affinity, engine={"max_adapters": options.resident}, roots=[str(root)])
            before = asyncio.run(_named(options, cluster.address, 2 * options.adapters, load=True))
            warm = total(cluster.counts())
            seconds = asyncio.run(_named(options, cluster.address, options.requests))
            totals = {name: value - warm[name] for name, value in total(cluster.counts()).items()}
        assert before
        served = totals["memory"] + totals["read"]
        found["affinity" if affinity else "no affinity"] = {
            "in_memory": round(totals["memory"] / served, 4),
            "handed_over": round(totals["forwarded"] / served, 4),
            "milliseconds": round(1e3 * statistics.median(seconds), 2),
            "mean_milliseconds": round(1e3 * statistics.mean(seconds), 2),
        }
    return found


def total(counts: list[dict[str, float]]) -> dict[str, float]:
    """Over the replicas."""
    return {name: sum(count[name] for count in counts) for name in ("memory", "read", "forwarded")}


async def _named(options: argparse.Namespace, address: str, requests: int, *, load: bool = False) -> list[float]:
    """Seconds of requests for adapters drawn at random, four at once."""
    caller = Caller(address, options)
    if load:
        for number in range(options.adapters):
            await caller.client.load_adapter(f"a{number}", str(number))
    drawn = random.Random(requests)
    waiting = [f"a{drawn.randrange(options.adapters)}" for _ in range(requests)]
    seconds: list[float] = []

    async def ask() -> None:
        while waiting:
            adapter = waiting.pop()
            begun = time.perf_counter()
            await caller.client.generate("Say one", adapter=adapter, temperature=0.0, max_new_tokens=8, ignore_eos=True)
            seconds.append(time.perf_counter() - begun)

    await asyncio.gather(*(ask() for _ in range(4)))
    await caller.client.close()
    return seconds


def processor() -> str:
    """As the system names it."""
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else 'an unnamed processor'}"


def main() -> None:
    """Measure the chosen parts."""
    options = arguments()
    parts = options.parts.split(",")
    report: dict[str, Any] = {"processor": processor(), "model": Path(model_of(options)).name, "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "overhead" in parts:
            report["overhead"] = overhead(options, folder, "haproxy")
        if "python" in parts:
            report["python"] = overhead(options, folder, "python")
        if "replicas" in parts:
            report["replicas"] = replicas(options, folder)
        if "adapters" in parts:
            report["adapters"] = adapters(options, folder)
    if not options.json:
        for part, values in report.items():
            print(f"{part}: {values}", file=sys.stderr)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
