"""Imports go one way: what the layers may know of one another."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    "ift_serve": ROOT / "ift_serve",
    "ift_kernels": ROOT / "kernels/ift_kernels",
    "ift_training": ROOT / "training/ift_training",
}

ALLOWED: dict[str, set[str]] = {
    "ift_kernels": {"ift_kernels"},
    "ift_serve.v1": {"ift_serve.v1"},
    "ift_serve.embedded": {"ift_serve.embedded"},
    "ift_serve.pages": {"ift_serve.pages"},
    "ift_serve.sharing": {"ift_serve.sharing"},
    "ift_serve.system": {"ift_serve.system"},
    "ift_serve.checks": {"ift_serve.checks"},
    "ift_serve.text": {"ift_serve.text"},
    "ift_serve.modeling": {"ift_serve.modeling", "ift_serve.text", "ift_kernels"},
    "ift_serve.modeling.decoder": {"ift_serve.modeling.decoder", "ift_serve.modeling.checkpoint", "ift_kernels"},
    "ift_serve.engine.config": set(),
    "ift_serve.engine.protocol": {"ift_serve.engine.protocol"},
    "ift_serve.engine.sequences": {
        "ift_serve.engine.sequences", "ift_serve.engine.cache.prefix_hash", "ift_serve.engine.adapters.version",
        "ift_serve.engine.protocol", "ift_serve.sharing",
    },
    "ift_serve.engine.cache": {"ift_serve.engine.cache", "ift_serve.engine.sequences"},
    "ift_serve.engine.drafting": {"ift_serve.engine.drafting", "ift_serve.engine.sequences"},
    "ift_serve.engine.scheduling": {
        "ift_serve.engine.scheduling", "ift_serve.engine.cache", "ift_serve.engine.adapters.admission",
        "ift_serve.engine.drafting", "ift_serve.engine.sequences", "ift_serve.sharing",
    },
    "ift_serve.engine.core": {
        "ift_serve.engine.core", "ift_serve.engine.scheduling", "ift_serve.engine.cache", "ift_serve.engine.adapters",
        "ift_serve.engine.drafting.drafts", "ift_serve.engine.sequences", "ift_serve.engine.protocol",
        "ift_serve.engine.config", "ift_serve.sharing", "ift_serve.system",
    },
    "ift_serve.engine.adapters": {
        "ift_serve.engine.adapters", "ift_serve.engine.cache.prefix_hash", "ift_serve.engine.protocol",
        "ift_serve.engine.sequences", "ift_serve.modeling", "ift_serve.system", "ift_kernels",
    },
    "ift_serve.engine.sampling": {
        "ift_serve.engine.sampling", "ift_serve.engine.protocol", "ift_serve.engine.sequences.step",
        "ift_serve.engine.sequences.adjusted_tokens", "ift_serve.engine.sequences.probability_average", "ift_kernels",
    },
    "ift_serve.engine.runner": {
        "ift_serve.engine.runner", "ift_serve.engine.sampling", "ift_serve.engine.adapters.tensors",
        "ift_serve.engine.sequences.step", "ift_serve.engine.sequences.draft_query",
        "ift_serve.engine.sequences.adjusted_tokens", "ift_serve.engine.protocol", "ift_serve.engine.config",
        "ift_serve.modeling", "ift_serve.system", "ift_kernels",
    },
    "ift_serve.decoding": {
        "ift_serve.decoding", "ift_serve.engine.core", "ift_serve.engine.sequences", "ift_serve.engine.protocol",
        "ift_serve.checks", "ift_serve.text",
    },
    "ift_serve.engine": {
        "ift_serve.engine", "ift_serve.decoding", "ift_serve.modeling", "ift_serve.text", "ift_serve.system",
        "ift_serve.sharing", "ift_kernels",
    },
    "ift_serve.frontend": {
        "ift_serve.frontend", "ift_serve.engine.protocol", "ift_serve.engine.config", "ift_serve.sharing",
        "ift_serve.system", "ift_kernels.cache_directory",
    },
    "ift_serve.engines": {
        "ift_serve.engines", "ift_serve.engine", "ift_serve.frontend",
    },
    "ift_serve.server": {
        "ift_serve.server", "ift_serve.frontend", "ift_serve.engine.protocol", "ift_serve.engine.config",
        "ift_serve.checks", "ift_serve.text", "ift_serve.sharing", "ift_serve.system", "ift_serve.v1",
    },
    "ift_serve.client": {"ift_serve.client", "ift_serve.v1"},
    "ift_serve.gateway": {"ift_serve.gateway", "ift_serve.client", "ift_serve.sharing", "ift_serve.system"},
    "ift_serve.playground": {"ift_serve.playground", "ift_serve.gateway", "ift_serve.pages"},
    "ift_serve.evaluation": {
        "ift_serve.evaluation", "ift_serve.checks", "ift_serve.client", "ift_serve.pages", "ift_serve.system",
        "ift_serve.v1",
    },
    "ift_serve.deploy": {
        "ift_serve.deploy", "ift_serve.server", "ift_serve.engines", "ift_serve.frontend", "ift_serve.engine.protocol",
        "ift_serve.engine.config", "ift_serve.system", "ift_serve.sharing", "ift_serve.v1",
    },
    "ift_serve.cli": {"ift_serve", "ift_training", "ift_kernels"},
    "ift_training": {
        "ift_training", "ift_serve.checks", "ift_serve.modeling", "ift_serve.text", "ift_serve.embedded",
        "ift_serve.system", "ift_kernels",
    },
    "ift_training.data.generation": {
        "ift_training", "ift_serve.checks", "ift_serve.modeling", "ift_serve.text", "ift_serve.embedded", "ift_kernels",
        "ift_serve.client", "ift_serve.evaluation.serving", "ift_serve.evaluation.errors", "ift_serve.system",
    },
    "ift_training.data.quality": {
        "ift_training", "ift_serve.checks", "ift_serve.modeling", "ift_serve.text", "ift_serve.embedded", "ift_kernels",
        "ift_serve.client", "ift_serve.evaluation.serving", "ift_serve.pages", "ift_serve.system",
    },
    "ift_training.temperature": {
        "ift_training", "ift_serve.checks", "ift_serve.modeling", "ift_serve.text", "ift_serve.embedded", "ift_kernels",
        "ift_serve.engines", "ift_serve.engine.config", "ift_serve.engine.protocol", "ift_serve.frontend",
    },
}  # fmt: skip
"""What each room may import of this project; the longest name that fits a module is its room. ``ift_serve.cli`` is the
top and may import everything, lazily."""

PACKAGE = {"ift_serve"}
"""Modules that are in no room: the package itself."""

FORBIDDEN = {
    "ift_serve.checks": {"grpc", "torch", "transformers"},
    "ift_serve.text": {"grpc", "torch"},
    "ift_serve.pages": {"grpc", "torch"},
    "ift_serve.system": {"grpc", "torch"},
    "ift_serve.sharing": {"grpc", "torch"},
    "ift_serve.engine": {"grpc", "opentelemetry"},
    "ift_serve.engine.protocol": {"grpc", "opentelemetry", "torch"},
    "ift_serve.engine.core": {"grpc", "opentelemetry", "torch", "zmq"},
    "ift_serve.engine.scheduling": {"grpc", "opentelemetry", "torch", "zmq"},
    "ift_serve.engine.cache": {"grpc", "opentelemetry", "torch", "zmq"},
    "ift_serve.engine.drafting": {"grpc", "opentelemetry", "torch", "zmq"},
    "ift_serve.decoding": {"grpc", "opentelemetry", "torch"},
    "ift_serve.frontend": {"grpc", "opentelemetry", "torch"},
    "ift_serve.client": {"torch", "transformers", "numpy"},
    "ift_serve.deploy": {"torch", "transformers"},
    "ift_serve.gateway": {"torch", "transformers", "numpy"},
    "ift_serve.playground": {"torch", "transformers", "numpy", "grpc"},
    "ift_serve.evaluation": {"torch", "transformers"},
}
NO_TORCH_AT_START = (
    "ift_serve.server",
    "ift_serve.cli",
    "ift_serve.client",
    "ift_serve.text",
    "ift_serve.frontend",
    "ift_serve.engines",
    "ift_serve.gateway",
    "ift_serve.playground",
)
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


def _room(module: str, rooms: Iterable[str]) -> str | None:
    return next((room for room in sorted(rooms, key=len, reverse=True) if _below(module, room)), None)


def violations(module: str, source: str) -> list[str]:
    """What a module imports that its room must not, or that it is in no room."""
    room = _room(module, ALLOWED)
    if room is None:
        return [] if module in PACKAGE else [f"{module} is in no room that this test knows"]
    tree = ast.parse(source)
    own = [i for i in _imports(tree) if i.split(".")[0] in SOURCES]
    found = [i for i in own if not any(_below(i, allowed) for allowed in ALLOWED[room])]
    forbidden = FORBIDDEN.get(_room(module, FORBIDDEN) or "", set())
    found += [i for i in _imports(tree) if i.split(".")[0] in forbidden]
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
        ("ift_serve.engine.core.core", "import grpc"),
        ("ift_serve.engine.core.core", "def f():\n    import torch"),
        ("ift_serve.engine.core.core", "from ift_serve.server import app"),
        ("ift_serve.engine.core.core", "from ift_serve.engine.runner import model_runner"),
        ("ift_serve.engine.core.core", "from ift_serve.decoding.registry import STRATEGIES"),
        ("ift_serve.engine.scheduling.scheduler", "from ift_serve.engine.core.core import EngineCore"),
        ("ift_serve.engine.sequences.sequence", "from ift_serve.engine.core.request import Request"),
        ("ift_serve.engine.scheduling.scheduler", "from ift_serve.engine.core.request import Request"),
        ("ift_serve.engine.cache.block_manager", "from ift_serve.engine.scheduling.scheduler import Scheduler"),
        ("ift_serve.engine.protocol.wire", "from ift_serve.engine.sequences.step import StepBatch"),
        ("ift_serve.engine.runner.model_runner", "from ift_serve.engine.scheduling.scheduler import Scheduler"),
        ("ift_serve.engine.worker", "from ift_serve.frontend.engine_client import EngineClient"),
        ("ift_serve.decoding.sample", "from ift_serve.engine.scheduling.scheduler import Scheduler"),
        ("ift_serve.frontend.supervisor", "from ift_serve.engine.worker import main"),
        ("ift_serve.frontend.supervisor", "import grpc"),
        ("ift_serve.modeling.decoder.flat_batch", "from ift_serve.engine.sequences.step import StepBatch"),
        ("ift_serve.modeling.decoder.decoder", "from ift_serve.modeling.multi_adapter import prepared"),
        ("ift_serve.server.app", "import torch"),
        ("ift_serve.server.app", "from ift_serve.engine.core.core import EngineCore"),
        ("ift_serve.client.sync", "def f():\n    import torch"),
        ("ift_serve.evaluation.tasks", "from ift_serve.server import app"),
        ("ift_serve.evaluation.tasks.adherence", "from ift_training.data import procedural"),
        ("ift_serve.evaluation.harness.backend", "def f():\n    import torch"),
        ("ift_serve.checks.words", "def f():\n    import transformers"),
        ("ift_serve.checks.registry", "from ift_serve.text import prompt"),
        ("ift_serve.text.prompt", "from ift_serve.modeling.decoder import model_loader"),
        ("ift_serve.system.logs", "from ift_serve.engine.config import EngineConfig"),
        ("ift_serve.sharing.places", "from ift_serve.engine.config import EngineConfig"),
        ("ift_kernels.silu_and_mul.api", "from ift_serve.modeling.decoder import flat_batch"),
        ("ift_training.tiny", "from ift_serve.engine.core import core"),
        ("ift_training.losses.ewc", "from ift_serve.engines.thread import local_engine"),
        ("ift_training.temperature.run", "from ift_serve.engine.core import core"),
        ("ift_training.data.selection", "from ift_serve.client import AsyncClient"),
        ("ift_training.data.generation.calls", "from ift_serve.evaluation.run import evaluate"),
        ("ift_serve.cellar.barrel", ""),
        ("ift_serve.barrel", ""),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    assert violations(module, source)


def _forbidden_imports(room: str) -> Iterator[str]:
    """Every other room, and every library, that the modules of a room must not import."""
    for other in ALLOWED:
        if not any(_below(f"{other}.anything", allowed) for allowed in ALLOWED[room]):
            yield f"{other}.anything"
    yield from FORBIDDEN.get(_room(room, FORBIDDEN) or "", set())


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_every_forbidden_import_is_found_in_a_real_module_of_the_room(room: str) -> None:
    module, path = next((module, path) for module, path in _modules() if _room(module, ALLOWED) == room)
    source = path.read_text(encoding="utf-8")
    for name in _forbidden_imports(room):
        for added in (f"import {name}", f"from {name} import x", f"def f():\n    import {name}"):
            found = violations(module, f"{source}\n\n{added}\n")
            assert any(_below(wrong, name) for wrong in found), f"{module}: {added}"


def test_there_are_forbidden_imports_of_every_room_but_the_top() -> None:
    assert {room for room in ALLOWED if not list(_forbidden_imports(room))} == {"ift_serve.cli"}


@pytest.mark.parametrize("module", ["ift_serve.engine.core.core", "ift_serve.engine.scheduling.scheduler"])
def test_the_core_runs_without_torch(module: str) -> None:
    """Not even by what it imports."""
    code = f"import sys, {module}; sys.exit(', '.join({{'torch', 'grpc', 'zmq', 'numba'}} & set(sys.modules)) or 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import one another, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in imports[module]:
            if other not in order:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in imports:
        if module not in order:
            visit(module)
    return found


def test_no_modules_import_one_another() -> None:
    """Not even for types alone, or from within a function."""
    modules = dict(_modules())
    imports: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = _imports(ast.parse(path.read_text(encoding="utf-8")))
        known = {name if name in modules else name.rpartition(".")[0] for name in names}
        imports[module] = (known & modules.keys()) - {module}
    assert circles(imports) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
