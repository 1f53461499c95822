"""A server under load while everything goes wrong: is every answer accounted for?

``python benchmarks/chaos.py --minutes 20 --json``. A real server of random weights in a network and on a small disk of
its own; meanwhile its engine is killed and stopped, its disk is full, streams are not read, adapters are replaced, and
packets are lost. An answer is right if it equals, token by token, what the same request answered alone; any other
outcome must be a status that the documentation has for it, while there was a reason. Exit code 1 for an answer that is
wrong, lost or missing. Faults that this machine does not let us make are named, not left out silently. Needs Linux;
without root the disk is not bounded and no packet is lost, which is said too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import traffic
from chaos_faults import Faults
from chaos_network import Network, network
from chaos_world import PATIENCE, UNREAD, World
from models import build
from ours import running
from soak_adapters import write_versions

from ift_serve.client import AsyncClient

_DISK_MIB = 64
_TOKENS = {"generate app": "app-0123456789abcdef", "admin ops": "ops-0123456789abcdef"}
_SETTLE_SECONDS = 30.0
_LEAST_INTERVAL, _FAULTS = 3.0, 80


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[str]:
    """A file system of its own in a directory; says how it is bounded."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m,mode=700", "none", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield "not bounded: mounting a file system needs root"
        return
    try:
        yield f"{_DISK_MIB} MiB"
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def command(model: Path, disk: Path, folder: Path, host: str) -> list[str]:
    """The server's."""
    tokens = folder / "tokens"
    tokens.write_text("".join(f"{who} {token}\n" for who, token in _TOKENS.items()))
    tokens.chmod(0o600)
    return [
        *(sys.executable, "-c", "from ift_serve.cli import main; main()", "serve", str(model), "--dtype", "float32"),
        *("--host", host, "--allow-insecure", "--port", "0", "--metrics-port", "-1", "--log-level", "warning"),
        *("--tokens-file", str(tokens), "--audit-log", str(disk / "audit.jsonl")),
        *("--adapter-root", str(disk / "adapters"), "--max-adapters", "3", "--cache-mib", "4"),
        *("--engine-patience", f"{PATIENCE:g}", "--stream-idle-timeout", f"{UNREAD:g}", "--drain-timeout", "10"),
    ]


async def call(world: World, end: float) -> None:
    """One caller after another's outcome, until the end."""
    ways = [world.ask_whole, world.ask_stream, world.ask_adapter, world.ask_adapter, world.leave, world.be_late]
    while time.monotonic() < end:
        await world.one(world.rng.choice(ways))
        await asyncio.sleep(world.rng.uniform(0, 0.05))


async def strike(faults: Faults, begun: float, end: float) -> None:
    """One fault after another, in turns, evenly."""
    kinds = list(faults.acts)
    interval = max(_LEAST_INTERVAL, (end - begun) / _FAULTS)
    number = 0
    while time.monotonic() + interval < end or number < len(kinds):
        await asyncio.sleep(interval if number else 0.5)
        await faults.strike(kinds[number % len(kinds)])
        number += 1
        print(f"{time.monotonic() - begun:.0f} s: {kinds[(number - 1) % len(kinds)]}", file=sys.stderr, flush=True)


async def settle(world: World) -> dict[str, int]:
    """With nobody calling, everything is free again."""
    end = time.monotonic() + _SETTLE_SECONDS
    while True:
        load: dict[str, int] = (await world.client.model()).load
        if not load["waiting"] and not load["running"] and load["free_blocks"] == load["total_blocks"]:
            return load
        if time.monotonic() > end:
            world.problems.append(f"leak: blocks or requests are left when nobody calls: {load}")
            return load
        await asyncio.sleep(0.1)


def check_audit(world: World, file: Path) -> dict[str, int]:
    """Every call of the administrator that was answered has its line, and no line is broken."""
    lines = file.read_text(encoding="utf-8").splitlines()
    try:
        told = [json.loads(line) for line in lines]
    except ValueError as error:
        world.problems.append(f"audit: a line is broken: {error}")
        told = []
    calls = [line for line in told if line.get("event") == "call"]
    if not world.admin_told <= len(calls) <= world.admin_asked:
        world.problems.append(f"audit: {len(calls)} lines of {world.admin_told} answered calls ({world.admin_asked})")
    if lost := sum(line.get("lines", 0) for line in told if line.get("event") == "lost"):
        world.problems.append(f"audit: {lost} lines are said to be lost")
    return {"lines": len(calls), "answered": world.admin_told, "asked": world.admin_asked}


async def chaos(address: str, front: int, disk: Path, net: Network, given: argparse.Namespace) -> dict[str, Any]:
    """Learn, then let everything go wrong, then look whether all of it is over."""
    target = f"{net.address}:{address.rpartition(':')[2]}"
    versions = write_versions(disk / "adapters", given.model, given.adapters)
    async with (
        AsyncClient(target, token=_TOKENS["generate app"], timeout=900, retries=0) as client,
        AsyncClient(target, token=_TOKENS["admin ops"], timeout=120, retries=0) as admin,
    ):
        world = World(client, admin, front, disk, given.seed)
        faults = Faults(world, net)
        await world.learn(given.cases, versions, given.seed)
        begun = time.monotonic()
        end = begun + 60 * given.minutes
        await asyncio.gather(strike(faults, begun, end), *(call(world, end) for _ in range(given.concurrency)))
        seconds = time.monotonic() - begun
        load = await settle(world)
        await world.administer(admin.adapters())
    return report(world, faults, net, seconds) | {"idle_load": load, "world": world}


def report(world: World, faults: Faults, net: Network, seconds: float) -> dict[str, Any]:
    """What became of everything."""
    kinds = {}
    for kind in dict.fromkeys(fault.kind for fault in world.faults):
        own = [fault for fault in world.faults if fault.kind == kind]
        recovered = [fault.recovered for fault in own if fault.recovered is not None]
        noticed = [fault.told["noticed"] for fault in own if "noticed" in fault.told]
        kinds[kind] = {
            "count": len(own),
            "recovered_median": round(statistics.median(recovered), 2) if recovered else None,
            "recovered_max": max(recovered, default=None),
        } | ({"noticed_max": max(noticed)} if noticed else {})
    return {
        "seconds": round(seconds, 1),
        "calls": sum(world.outcomes.values()) + len(world.problems),
        "outcomes": dict(sorted(world.outcomes.items())),
        "faults": kinds,
        "skipped": faults.skipped,
        "network": net.kind,
    }


def table(found: dict[str, Any]) -> None:
    """For people."""
    print(f"{found['calls']} calls in {found['seconds']:.0f} s; network: {found['network']}; disk: {found['disk']}")
    print(f"{'fault':24}{'times':>6}{'answered again after, s: median':>34}{'longest':>9}")
    for kind, one in found["faults"].items():
        print(f"{kind:24}{one['count']:>6}{one['recovered_median']!s:>34}{one['recovered_max']!s:>9}")
    for kind, why in found["skipped"].items():
        print(f"{kind:24}{'':>6}  {why}")
    print(f"{'outcome':48}{'calls':>8}")
    for outcome, count in found["outcomes"].items():
        print(f"{outcome:48}{count:>8}")
    print(f"{'neither right nor documented':48}{found['problem_count']:>8}")
    for problem in found["problems"]:
        print(f"  {problem}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory; none: random weights in the shape `small`")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--concurrency", type=int, default=12)
    parser.add_argument("--cases", type=int, default=30, help="distinct requests whose solo answers are learnt first")
    parser.add_argument("--adapters", type=int, default=3, help="names whose two versions replace one another")
    parser.add_argument(
        "--call-seconds", type=float, default=120.0, help="what a call may take; more on a busy machine"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="the server's log")
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


def main() -> int:
    """Run and print; 1 if anything is not accounted for."""
    given = arguments()
    traffic.TIMEOUT = given.call_seconds
    with tempfile.TemporaryDirectory(prefix="ift-chaos-") as scratch, contextlib.ExitStack() as stack:
        folder = Path(scratch)
        given.model = given.model or build("small", folder / "small", "float32")
        disk = folder / "disk"
        bounded = stack.enter_context(small_disk(disk))
        for name in ("adapters", "cache"):
            (disk / name).mkdir(mode=0o700)
        net = stack.enter_context(network())
        server = net.command(command(given.model, disk, folder, net.address))
        with running(server, log=given.log, environment={"IFT_CACHE_DIR": str(disk / "cache")}) as (address, front):
            found = asyncio.run(chaos(address, front, disk, net, given))
        world: World = found.pop("world")
        found |= {"disk": bounded, "audit": check_audit(world, disk / "audit.jsonl")}
    kinds = Counter(problem.split(":")[0] for problem in world.problems)
    found |= {
        "problem_count": len(world.problems),
        "problem_kinds": dict(kinds),
        "problems": world.problems[:50],
        "passed": not world.problems,
    }
    if given.json:
        print(json.dumps(found))
    else:
        table(found)
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
