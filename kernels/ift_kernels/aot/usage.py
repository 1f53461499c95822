"""Registers, spills, shared memory and tensor-core instructions of a compiled kernel."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
_TENSOR_CORE = re.compile(r"\b(HGMMA|HMMA|UTC\w*MMA)\b")


@dataclass(frozen=True, slots=True)
class Usage:
    """Registers a thread, bytes of stack a thread (spills), bytes of shared memory a program, and the kind of
    tensor-core instruction: ``HMMA`` (Ampere), ``HGMMA`` (Hopper), ``UTCHMMA`` and kin (Blackwell), or empty."""

    registers: int
    stack: int
    shared: int
    tensor_core: str


def _run(tool: str, *arguments: str) -> str:
    done = subprocess.run([str(_TOOLS / tool), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def usage(kernel: Any) -> Usage:
    """Of a kernel that Triton compiled. Raises RuntimeError if the tools of the Triton wheel cannot read it."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        found = _RESOURCES.search(_run("cuobjdump", "--dump-resource-usage", file.name))
        if found is None:
            raise RuntimeError("cuobjdump printed no resource usage")
        # Disassembling takes ten times as long as compiling; what multiplies no matrices need not be.
        multiplies = "mma" in kernel.asm["ptx"]
        kinds = set(_TENSOR_CORE.findall(_run("nvdisasm", "-c", "-ndf", file.name))) if multiplies else set()
    best = next((kind for kind in sorted(kinds, key=lambda k: (k == "HMMA", k))), "")
    return Usage(int(found[1]), int(found[2]) + int(found[4]), int(kernel.metadata.shared), best)
