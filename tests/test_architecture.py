"""Imports go one way: what the layers may know of one another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    "ift_serve": ROOT / "ift_serve",
    "ift_kernels": ROOT / "kernels/ift_kernels",
    "ift_training": ROOT / "training/ift_training",
}

ALLOWED = {
    "ift_kernels": {"ift_kernels"},
    "ift_serve.text": {"ift_serve.text"},
    "ift_serve.modeling": {"ift_serve.modeling", "ift_serve.text", "ift_kernels"},
    "ift_serve.engine": {"ift_serve.engine", "ift_serve.modeling", "ift_serve.text", "ift_kernels"},
    "ift_serve.decoding": {
        "ift_serve.decoding", "ift_serve.engine", "ift_serve.modeling", "ift_serve.text", "ift_kernels",
    },
    "ift_serve.server": {
        "ift_serve.server", "ift_serve.decoding", "ift_serve.engine", "ift_serve.modeling", "ift_serve.text",
        "ift_serve.v1",
    },
    "ift_serve.v1": {"ift_serve.v1"},
    "ift_serve.client": {"ift_serve.client", "ift_serve.v1"},
    "ift_serve.evaluation": {"ift_serve.evaluation", "ift_serve.client", "ift_serve.v1"},
    "ift_serve.embedded": {"ift_serve.embedded"},
    "ift_training": {"ift_training", "ift_serve.modeling", "ift_serve.text", "ift_serve.embedded", "ift_kernels"},
}  # fmt: skip
"""What each part may import of this project. ``ift_serve.cli`` is the top and may import everything, lazily."""

FORBIDDEN = {
    "ift_serve.text": {"grpc", "torch"},
    "ift_serve.engine": {"grpc"},
    "ift_serve.decoding": {"grpc", "torch"},
    "ift_serve.client": {"torch", "transformers", "numpy"},
}
NO_TORCH_AT_START = ("ift_serve.server", "ift_serve.cli", "ift_serve.client", "ift_serve.text")
HEAVY = {"torch", "transformers", "numba", "peft"}


def _modules() -> Iterator[tuple[str, Path]]:
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join([package, *(p for p in parts if p != "__init__")]), path


def _imports(tree: ast.AST, *, top_level_only: bool = False) -> Iterator[str]:
    nodes = ast.walk(tree)
    if top_level_only:
        nodes = iter(getattr(tree, "body", []))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "relative imports hide the arrows"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _below(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def violations(module: str, source: str) -> list[str]:
    """What a module imports that its part must not."""
    tree = ast.parse(source)
    found = []
    part = next((p for p in sorted(ALLOWED, key=len, reverse=True) if _below(module, p)), None)
    if part is not None:
        own = [i for i in _imports(tree) if i.split(".")[0] in SOURCES]
        found += [i for i in own if not any(_below(i, allowed) for allowed in ALLOWED[part])]
        found += [i for i in _imports(tree) if i.split(".")[0] in FORBIDDEN.get(part, ())]
    if any(_below(module, p) or module.startswith(p + "_") for p in NO_TORCH_AT_START):
        found += [i for i in _imports(tree, top_level_only=True) if i.split(".")[0] in HEAVY]
    return found


@pytest.mark.parametrize(
    ("module", "path"), list(_modules()), ids=lambda value: str(value) if isinstance(value, str) else ""
)
def test_imports_go_one_way(module: str, path: Path) -> None:
    assert violations(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ift_serve.engine.core", "import grpc"),
        ("ift_serve.engine.core", "from ift_serve.server import app"),
        ("ift_serve.modeling.batch", "from ift_serve.engine.step import StepBatch"),
        ("ift_serve.server.app", "import torch"),
        ("ift_serve.client.sync", "def f():\n    import torch"),
        ("ift_kernels.silu_mul.api", "from ift_serve.modeling import batch"),
        ("ift_serve.text.prompt", "from ift_serve.modeling import loading"),
        ("ift_training.tiny", "from ift_serve.engine import core"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    assert violations(module, source)
