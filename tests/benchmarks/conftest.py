"""The benchmarks are scripts: their folder is where they import one another from."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "benchmarks"

sys.path.append(str(SCRIPTS))
