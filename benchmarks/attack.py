"""Runs the catalogue of expensive requests against a live server and prints what another caller felt meanwhile.

Only ever against a server on this machine. Exit status 1 where the other caller was refused or got no answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from attack_catalogue import CATALOGUE
from attacker import Attack, Attacker, told
from ours import server

from ift_serve.embedded import model_path

_LONGEST = 90.0
"""Seconds for one attack."""
_HEALTH_GOAL = 100.0
"""Milliseconds that a health check may take while others attack."""
_TOKENS = {"generate attacker": "attacker-0123456789abcdef", "generate other": "other-0123456789abcdef"}
_ADMIN = "admin-0123456789abcdef"
_METRICS_PORT = 19464


class Probe:
    """The other caller's process."""

    def __init__(self, target: str) -> None:
        script = Path(__file__).parent / "attack_probe.py"
        self._process = subprocess.Popen(
            [sys.executable, str(script), target, _TOKENS["generate other"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def during(self, work: Any) -> dict[str, Any]:
        """What was felt while ``work`` ran, milliseconds."""
        self._say("begin")
        begun = time.perf_counter()
        outcome = asyncio.run(work)
        seconds = time.perf_counter() - begun
        self._say("end")
        report: dict[str, Any] = json.loads(self._line())
        return report | {"seconds": seconds, "outcome": outcome}

    def close(self) -> None:
        """End it."""
        self._say("")
        self._process.wait(30)


async def _bounded(attack: Attack, attacker: Attacker) -> str:
    try:
        async with asyncio.timeout(_LONGEST):
            await attack(attacker)
    except TimeoutError:
        return f"still going on after {_LONGEST:g} s"
    return "done"


async def _nothing() -> str:
    await asyncio.sleep(5)
    return "done"


def run(target: str, names: list[str]) -> dict[str, Any]:
    """What was felt, by attack; `nothing` is the idle server."""
    attacker = Attacker(target, _METRICS_PORT, _TOKENS["generate attacker"], _ADMIN)
    probe = Probe(target)
    felt = {"nothing": probe.during(_nothing())}
    for name in names:
        told.clear()
        felt[name] = probe.during(_bounded(CATALOGUE[name], attacker)) | {"told": dict(told)}
        print(".", end="", file=sys.stderr, flush=True)
    felt["nothing, afterwards"] = probe.during(_nothing())
    probe.close()
    print(file=sys.stderr)
    return felt


def table(felt: dict[str, Any]) -> None:
    """For people."""
    columns = f"{'s':>6} {'health: median':>15} {'max':>8} {'first token: median':>20} {'max':>9}"
    print(f"{'attack':40} {columns}  errors; what the attacker was told")
    for name, one in felt.items():
        health, first = one["health"], one["first_token"]
        errors = {**health["errors"], **first["errors"]}
        shown = [
            f"{v:.1f}" if v is not None else "-"
            for v in (health["median"], health["max"], first["median"], first["max"])
        ]
        print(
            f"{name:40} {one['seconds']:6.1f} {shown[0]:>15} {shown[1]:>8} {shown[2]:>20} {shown[3]:>9}  "
            f"{errors or ''}{'' if one['outcome'] == 'done' else one['outcome']} "
            + ", ".join(f"{count} {status}" for status, count in one.get("told", {}).items())
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=model_path(), help="directory; none: the embedded model")
    parser.add_argument("--only", nargs="*", default=[], help="attacks whose names contain one of these")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--log", type=Path, help="the server's log")
    arguments = parser.parse_args()
    names = [name for name in CATALOGUE if not arguments.only or any(word in name for word in arguments.only)]
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        tokens = folder / "tokens"
        lines = [f"{who} {token}" for who, token in _TOKENS.items()] + [f"admin operator {_ADMIN}"]
        tokens.write_text("\n".join(lines) + "\n")
        tokens.chmod(0o600)
        options = ["--tokens-file", str(tokens), "--metrics-port", str(_METRICS_PORT), "--adapter-root", directory]
        with server(arguments.model, *options, log=arguments.log) as (target, _):
            felt = run(target, names)
    lost = [name for name, one in felt.items() if one["health"]["errors"] or one["first_token"]["errors"]]
    worst = max(one["health"]["max"] or 0.0 for one in felt.values())
    report = {
        "cores": os.cpu_count(),
        "model": arguments.model.name,
        "felt": felt,
        "lost": lost,
        "worst_health_ms": worst,
        "within_goal": worst <= _HEALTH_GOAL and not lost,
    }
    if arguments.json:
        print(json.dumps(report))
    else:
        table(felt)
        print(f"worst health check {worst:.0f} ms (goal {_HEALTH_GOAL:g}); lost: {', '.join(lost) or 'nothing'}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
