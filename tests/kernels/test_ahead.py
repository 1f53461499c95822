"""Kernels compiled ahead of their first use: none is forgotten, and what goes wrong is compiled later."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import ift_kernels
from ift_kernels.ahead import workers

PACKAGE = Path(str(ift_kernels.__file__)).parent


def _decorated(path: Path) -> list[str]:
    """Functions of a source file that ``openmp.worker`` decorates."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [f.name for f in functions if any("openmp.worker(" in ast.unparse(one) for one in f.decorator_list)]


def test_every_worker_in_the_sources_is_compiled_ahead() -> None:
    from ift_kernels.cpu_simd import bf16, integers

    written = {(path.parent.name, name) for path in PACKAGE.rglob("*.py") for name in _decorated(path)}
    found = {(w.function.__module__.split(".")[1], w.function.__name__) for group in workers() for w in group}
    assert len(found) > 15
    needs_pairs = {(folder, name) for folder, name in written if name == "_worker_pairs" and not bf16.available()}
    needs_bytes = {
        (folder, name)
        for folder, name in written
        if folder in ("quantized_linear", "quantize_weight") and not integers.available()
    }
    assert written - found == needs_pairs | needs_bytes, "a worker stands in its kernel's cpu.py"


def test_workers_of_one_dtype_are_found_by_its_name() -> None:
    for dtype in ("float32", "bfloat16"):
        assert {str(worker.dtype) for group in workers([dtype]) for worker in group} == {f"torch.{dtype}"}


def test_nothing_but_workers_is_compiled_for_threads() -> None:
    """What is compiled in another way would not be there ahead of a start."""
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text()
        if path.parent.name != "cpu_simd":
            assert "CFunc" not in source and "cfunc" not in source and "cache=" not in source, path


def _python(program: str, kernels: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"IFT_KERNELS": str(kernels), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SMALL = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s", level="INFO")
from ift_kernels.ahead import Compilation, is_compiled, workers
from ift_kernels.cpu_simd.openmp import compiled
from ift_kernels.silu_and_mul.cpu import _worker_fp32
"""


def test_what_one_process_has_compiled_the_next_finds(tmp_path: Path) -> None:
    said = [_python(SMALL + "compiled(_worker_fp32)", tmp_path) for _ in range(2)]
    assert "kernel silu_and_mul._worker_fp32 was compiled" in said[0]
    assert "was compiled" not in said[1]


def test_a_damaged_file_is_compiled_again(tmp_path: Path) -> None:
    _python(SMALL + "compiled(_worker_fp32)", tmp_path)
    for path in (*tmp_path.glob("*.nbc"), *tmp_path.glob("*.nbi")):
        path.write_bytes(path.read_bytes()[:40])
    again = _python(SMALL + "print(compiled(_worker_fp32) != 0)", tmp_path)
    assert "kernel silu_and_mul._worker_fp32 was compiled" in again and "True" in again


def test_processes_compile_and_note_it_only_if_all_of_them_could(tmp_path: Path) -> None:
    program = SMALL + (
        "told = []\n"
        "groups = [[_worker_fp32]]\n"
        "assert Compilation(groups, 2).finish(['float32'], told.append) and told == [1]\n"
        "assert is_compiled(['float32']) and not is_compiled(['bfloat16'])\n"
        "from ift_kernels.cpu_simd import openmp\n"
        "import torch\n"
        "def broken(data): undefined_name(data)\n"
        "broken.__module__ = 'ift_kernels.broken'\n"
        "worse = openmp.worker(torch.bfloat16)(broken)\n"
        "assert not Compilation([[worse], [_worker_fp32]], 1).finish(['bfloat16'])\n"
        "assert not is_compiled(['bfloat16'])\n"
        "print('done')"
    )
    assert _python(program, tmp_path).endswith("done\n")


def test_code_for_another_processor_counts_as_not_compiled(tmp_path: Path) -> None:
    note = "from ift_kernels.cpu_simd.storage import mark_complete, kept_code; mark_complete(kept_code())"
    _python(note, tmp_path)
    ask = "from ift_kernels.ahead import is_compiled; print(is_compiled(['float32', 'bfloat16']))"
    assert _python(ask, tmp_path) == "True\n"
    assert _python("import os; os.environ['NUMBA_CPU_NAME'] = 'generic'; " + ask, tmp_path) == "False\n"


def test_what_is_complete_is_used_where_nothing_can_be_written_and_else_the_next_place(tmp_path: Path) -> None:
    ask = "from ift_kernels.cpu_simd.storage import kept_code; print(kept_code())"
    assert _python(ask, tmp_path / "made") == f"{tmp_path / 'made'}\n"
    assert _python(ask, Path("/dev/null/nowhere")) != "/dev/null/nowhere\n"
