"""The committed stubs are what the .proto files generate."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_stubs_are_reproducible(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "protos" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError:
        pytest.skip("grpcio-tools is not installed; it comes with the extra dev")
    module.generate(tmp_path)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*"))
    assert len(made) == 20
    for name in made:
        assert (ROOT / name).read_text() == (tmp_path / name).read_text(), f"{name} is stale; run make proto"
