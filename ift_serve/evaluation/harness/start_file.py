"""A file that Python reads when it starts in an environment, so that lm-eval's own command knows the model."""

from __future__ import annotations

import sysconfig
from pathlib import Path

NAME = "ift_serve_lm_eval.pth"
_LINE = (
    "import importlib.util; importlib.util.find_spec('ift_serve') and "
    "importlib.import_module('ift_serve.evaluation.harness.registration').register_on_import()\n"
)
"""Does nothing once this package is gone, and imports nothing heavy."""


def write_start_file(folder: Path | None = None) -> Path:
    """Write it into the environment's packages, or ``folder``. Raises OSError."""
    path = _path(folder)
    path.write_text(_LINE, encoding="utf-8")
    return path


def remove_start_file(folder: Path | None = None) -> Path:
    """Take it away, if it is there. Raises OSError."""
    path = _path(folder)
    path.unlink(missing_ok=True)
    return path


def _path(folder: Path | None) -> Path:
    return (folder or Path(sysconfig.get_path("purelib"))) / NAME
