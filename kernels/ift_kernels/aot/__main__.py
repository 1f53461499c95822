"""``python -m ift_kernels.aot``: what every kernel needs on a GPU that is not here, and how often it compiles.

Prints JSON: with ``--sweep`` the number of compilations of each kernel over serving shapes, otherwise the usage of
each kernel of each budgeted launch. ``--update`` writes the budgets, with a little room for other Triton versions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

BUDGET = Path(__file__).parent / "budget.json"
CAPABILITIES = (80, 90, 100)
_ROOM = 24
"""Registers that another version of Triton may take more; the notes on 3.6 and 3.9 differ by as much."""


def measure(capability: int) -> dict[str, dict[str, object]]:
    """Usage by ``operation:kernel``; of several specialisations, the largest."""
    from ift_kernels.aot.cases import budgeted
    from ift_kernels.aot.compile_only import compile_only
    from ift_kernels.aot.usage import usage
    from ift_kernels.device import FLOAT8_CAPABILITY

    found: dict[str, dict[str, object]] = {}
    for name, launch in budgeted():
        if "float8" in name and capability < FLOAT8_CAPABILITY:
            continue
        with compile_only(capability) as compiled:
            launch()
        for compilation in compiled:
            key = f"{name}:{compilation.name}"
            used = asdict(usage(compilation.kernel))
            found[key] = used if key not in found else max((found[key], used), key=lambda u: str(u["registers"]))
    return found


def sweep(capability: int) -> dict[str, int]:
    """Compilations of each kernel over :func:`ift_kernels.aot.cases.swept`."""
    from ift_kernels.aot.cases import swept
    from ift_kernels.aot.compile_only import compile_only

    with compile_only(capability) as compiled:
        for _, launch in swept():
            launch()
    return dict(Counter(compilation.name for compilation in compiled))


def _budget(used: dict[str, object]) -> dict[str, object]:
    registers = min(255, int(str(used["registers"])) + _ROOM)
    return {**used, "registers": registers}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m ift_kernels.aot", description=__doc__)
    parser.add_argument("--arch", type=int, choices=CAPABILITIES, action="append", help="default: all")
    parser.add_argument("--sweep", action="store_true", help="count compilations over serving shapes")
    parser.add_argument("--update", action="store_true", help=f"write {BUDGET.name}")
    arguments = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("TRITON_INTERPRET is set: kernels would be interpreted, not compiled")
    wanted = arguments.arch or CAPABILITIES
    if arguments.sweep:
        print(json.dumps({str(arch): sweep(arch) for arch in wanted}, indent=1))
        return 0
    measured = {str(arch): measure(arch) for arch in wanted}
    if arguments.update:
        known = json.loads(BUDGET.read_text(encoding="utf-8")) if BUDGET.exists() else {}
        known |= {arch: {key: _budget(used) for key, used in found.items()} for arch, found in measured.items()}
        BUDGET.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps(measured, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
