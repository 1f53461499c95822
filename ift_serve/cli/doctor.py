"""`ift-serve doctor`: what this machine can run, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Literal

from ift_serve.cli.connect import Json

_EXTRAS = {
    "train": ("accelerate", "datasets", "tensorboard", "matplotlib"),
    "eval": ("lm_eval", "langdetect", "nltk", "scipy"),
    "bench": ("accelerate", "psutil"),
    "gguf": ("gguf",),
}
Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``advice`` is empty where nothing is to be done."""

    name: str
    status: Status
    value: str
    advice: str = ""


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding("python", "ok" if good else "problem", platform.python_version(), "" if good else "install 3.11+")


def _packages() -> list[Finding]:
    findings = []
    for name in ("torch", "transformers", "grpcio", "numba", "triton"):
        try:
            findings.append(Finding(name, "ok", metadata.version(name)))
        except metadata.PackageNotFoundError:
            optional = name == "triton"
            findings.append(
                Finding(name, "note" if optional else "problem", "missing", "" if optional else f"pip install {name}")
            )
    return findings


def _processor() -> list[Finding]:
    import torch

    from ift_serve.system.machine import processors

    cores = processors()
    capability = torch.backends.cpu.get_cpu_capability()
    native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) if torch.backends.mkldnn.is_available() else False  # type: ignore[no-untyped-call]
    advice = "" if native else "weights in bfloat16 stay so and are widened as they are read; products are float32's"
    spin = os.environ.get("OMP_WAIT_POLICY", "unset")
    return [
        Finding("cores", "ok", f"{cores} of {os.cpu_count()}, by affinity, cpuset and quota"),
        Finding("instructions", "ok", capability),
        Finding("bfloat16 products", "ok" if native else "note", "native" if native else "none", advice),
        Finding("OMP_WAIT_POLICY", "ok", f"{spin} here; the engine process always gets PASSIVE"),
    ]


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("gpu", "ok", torch.cuda.get_device_name(0))
    return Finding("gpu", "note", "none", "the CPU path is used")


def _memory() -> list[Finding]:
    from ift_serve.system.machine import available_memory, memory_limit

    free = available_memory() / 2**30
    enough = free > 2
    cache = f"at most {free / 4:.1f} GiB by default, a quarter of what is free; taken as it is used"
    return [
        Finding("memory limit", "ok", f"{memory_limit() / 2**30:.1f} GiB"),
        Finding("free memory", "ok" if enough else "note", f"{free:.1f} GiB", "" if enough else "little for a cache"),
        Finding("cache on the CPU", "ok", cache),
    ]


def _kernels() -> Finding:
    from ift_kernels.ahead import is_compiled
    from ift_kernels.cpu_simd.storage import DTYPES, kept_code

    if is_compiled(DTYPES):
        return Finding("cpu kernels", "ok", f"compiled, in {kept_code()}")
    return Finding("cpu kernels", "note", "not compiled", "`ift-serve compile` does it now, else a first start does")


def _caches() -> Finding:
    from ift_kernels.cache_directory import cache_directory

    found = cache_directory("kernels")
    advice = "" if found else "kernels are compiled anew at each start; set IFT_CACHE_DIR to a private directory"
    return Finding("cache directory", "ok" if found else "note", str(found and found.parent), advice)


def _extras() -> list[Finding]:
    findings = []
    for extra, modules in _EXTRAS.items():
        missing = [m for m in modules if importlib.util.find_spec(m) is None]
        value = "installed" if not missing else f"missing {', '.join(missing)}"
        advice = f"pip install 'ift-serve[{extra}]'" if missing else ""
        findings.append(Finding(f"extra {extra}", "note" if missing else "ok", value, advice))
    return findings


def _compiler() -> Finding:
    found = shutil.which("g++") or shutil.which("c++")
    return Finding("compiler", "ok", found or "none (not needed)")


def _embedded() -> Finding:
    from ift_serve.embedded import model_path

    try:
        return Finding("embedded model", "ok", f"{(model_path() / 'model.safetensors').stat().st_size / 2**20:.1f} MiB")
    except FileNotFoundError as error:
        return Finding("embedded model", "problem", "missing", str(error))


def doctor(as_json: Json = False) -> None:
    """Look at this machine; exit code 1 if something that serving needs is missing."""
    import typer

    findings = [_python(), *_packages()]
    if not any(f.status == "problem" for f in findings):
        findings += [*_processor(), _device(), _compiler(), *_memory(), _kernels(), _caches(), _embedded()]
    findings += _extras()
    if as_json:
        print(json.dumps([asdict(f) for f in findings]))
    else:
        _show(findings)
    if any(f.status == "problem" for f in findings):
        raise typer.Exit(1)


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "what", "found", "advice")
    colours = {"ok": "[green]ok", "note": "[yellow]note", "problem": "[red]problem"}
    for finding in findings:
        table.add_row(colours[finding.status], finding.name, finding.value, finding.advice)
    Console().print(table)
