"""Fuzzes what strangers send: ``python tests/fuzz/run.py --minutes 60``.

With the package atheris inputs are chosen by what code they reach (libFuzzer); without it they are random changes of
known ones, which the report says. Each target runs in a process of its own. What fails is written to
``tests/fuzz/found/TARGET``, where the tests run it from then on; what reaches new code to ``--corpus``. Exit code 1
where anything failed. ``--seeds`` writes the inputs to begin with anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "kernels"), str(HERE.parents[1] / "training")]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests.fuzz.inputs import SCRATCH  # noqa: E402
from tests.fuzz.targets import TARGETS  # noqa: E402

CORPUS, FOUND = HERE / "corpus", HERE / "found"
_LONGEST = 1 << 16
_TIMEOUT = 30
"""Seconds that one input may take."""
_MEMORY_MIB = 4096
_WORDS = (
    b"\0",
    b"\xff",
    b"\x80",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"1e999",
    b"-1",
    b"NaN",
    b"null",
    b"\xed\xa0\x80",
    b"../",
)


def known(name: str) -> list[Path]:
    """Inputs of a target that are kept."""
    return [file for folder in (CORPUS / name, FOUND / name) if folder.is_dir() for file in sorted(folder.iterdir())]


def write_seeds() -> None:
    """Of all targets."""
    for name, target in TARGETS.items():
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
        for seed, content in target.make_seeds().items():
            (CORPUS / name / re.sub(r"\W", "_", seed)).write_bytes(content)


def with_atheris(name: str, seconds: int, corpus: Path, artifacts: Path, kept: tuple[Path, ...]) -> None:
    """One target in this process, until the time is over or an input fails; never returns."""
    import atheris

    with atheris.instrument_imports(include=["ift_serve"]):
        run = TARGETS[name].load()
    corpus.mkdir(parents=True, exist_ok=True)
    folders = [str(corpus), *(str(folder / name) for folder in kept if (folder / name).is_dir())]
    options = [
        f"-max_total_time={seconds}", f"-max_len={_LONGEST}", f"-timeout={_TIMEOUT}", f"-rss_limit_mb={_MEMORY_MIB}",
        f"-artifact_prefix={artifacts}/", f"-report_slow_units={_TIMEOUT}", "-print_final_stats=1", "-verbosity=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, *folders], run)
    atheris.Fuzz()


def changed(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """An input with a few random changes."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(5):
            case 0 if found:
                found[at % len(found)] ^= 1 << rng.randrange(8)
            case 1:
                found[at:at] = rng.choice(_WORDS)
            case 2:
                del found[at : at + rng.randint(1, 16)]
            case 3:
                other = rng.choice(others)
                begin = rng.randrange(len(other) + 1)
                found[at:at] = other[begin : begin + rng.randint(1, 64)]
            case _:
                found[at:at] = found[at : at + rng.randint(1, 32)] * rng.randint(1, 8)
    return bytes(found[:_LONGEST])


def without_atheris(run: Callable[[bytes], None], inputs: list[bytes], seconds: float, artifacts: Path) -> None:
    """The same by random changes, which know nothing of the code. Raises what an input raises, once it is written."""
    rng, end, count = random.Random(0), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = changed(rng.choice(inputs), inputs, rng)
        count += 1
        try:
            run(data)
        except Exception:
            (artifacts / f"crash-{hashlib.sha1(data).hexdigest()}").write_bytes(data)
            print(f"stat::number_of_executed_units: {count}", file=sys.stderr)
            raise
    print(f"stat::number_of_executed_units: {count}", file=sys.stderr)


def fuzz(name: str, seconds: float, corpus: Path, engine: str) -> dict[str, Any]:
    """A target for so long; after a failure it goes on."""
    end, runs, edges = time.monotonic() + seconds, 0, 0
    failures: dict[str, str] = {}
    while (left := int(end - time.monotonic())) > 0:
        with tempfile.TemporaryDirectory() as artifacts, tempfile.TemporaryDirectory(dir=_memory()) as files:
            command = [
                *(sys.executable, str(Path(__file__)), "--target", name, "--seconds", str(left), "--engine", engine),
                *("--corpus", str(corpus), "--artifacts", artifacts),
            ]
            if failures:  # it would begin with what fails, and fail again
                command.append("--without-found")
            environment = os.environ | {SCRATCH: files}
            done = subprocess.run(command, capture_output=True, check=False, env=environment)
            # atheris prints what was raised, libFuzzer logs.
            told = (done.stdout + done.stderr).decode(errors="replace")
            counts = re.findall(r"stat::number_of_executed_units:\s*(\d+)|^#(\d+)\s", told, re.MULTILINE)
            runs += max((int(a or b) for a, b in counts), default=0)
            edges = max([edges, *(int(n) for n in re.findall(r"cov: (\d+)", told))])
            kept = [file for file in Path(artifacts).iterdir() if file.is_file()]
            if done.returncode and not kept:
                raise RuntimeError(f"{name}: ended with {done.returncode}, and no input is blamed: {told[-2000:]}")
            for file in kept:
                (FOUND / name).mkdir(parents=True, exist_ok=True)
                target = FOUND / name / file.name
                target.write_bytes(file.read_bytes())
                failures[target.name] = _reason(told)
                print(f"{name}: {target.name}: {failures[target.name]}", file=sys.stderr, flush=True)
    return {"runs": runs, "edges": edges, "failures": failures}


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _reason(told: str) -> str:
    """The last line of the traceback, or libFuzzer's word."""
    lines = [line for line in told.splitlines() if re.match(r"[\w.]+(Error|Exception|Group|Interrupt)\b", line)]
    others = re.findall(r"ERROR: libFuzzer: (.+)", told)
    return (lines or others or ["unknown"])[-1][:300]


def _has_atheris() -> bool:
    try:
        import atheris  # noqa: F401
    except ImportError:
        return False
    return True


def main() -> int:
    """Run, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of all targets together")
    parser.add_argument("--only", nargs="*", default=[], choices=TARGETS, help="targets; none: all")
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "ift-fuzz")
    parser.add_argument("--engine", choices=("auto", "atheris", "random"), default="auto")
    parser.add_argument("--seeds", action="store_true", help="write the inputs to begin with, and do nothing else")
    parser.add_argument("--target", choices=TARGETS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--artifacts", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--without-found", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.seeds:
        write_seeds()
        return 0
    engine = given.engine if given.engine != "auto" else "atheris" if _has_atheris() else "random"
    if given.target:
        if engine == "atheris":
            kept = (CORPUS,) if given.without_found else (CORPUS, FOUND)
            with_atheris(given.target, given.seconds, given.corpus, given.artifacts, kept)
        else:
            inputs = [file.read_bytes() for file in known(given.target)]
            without_atheris(TARGETS[given.target].load(), inputs, given.seconds, given.artifacts)
        return 0
    names = given.only or list(TARGETS)
    share = 60 * given.minutes / len(names)
    report = {name: fuzz(name, share, given.corpus / name, engine) for name in names}
    print(json.dumps({"engine": engine, "minutes": given.minutes, "targets": report}, indent=2))
    return 1 if any(one["failures"] for one in report.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
