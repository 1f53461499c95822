"""Every input that the fuzzer is given, and every one with which it once found a fault, passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.run import FOUND, HERE, known, without_atheris
from tests.fuzz.targets import TARGETS

_INPUTS = [(name, file) for name in TARGETS for file in known(name)]
_loaded: dict[str, Callable[[bytes], None]] = {}


@pytest.mark.parametrize(("name", "file"), _INPUTS, ids=lambda value: value.name if isinstance(value, Path) else value)
def test_an_input_is_taken_or_refused(name: str, file: Path) -> None:
    if name == "gguf":
        pytest.importorskip("gguf", reason="needs the extra gguf")
    run = _loaded.setdefault(name, TARGETS[name].load())
    run(file.read_bytes())


def test_every_target_has_inputs_and_nothing_else_is_kept() -> None:
    assert {name for name, _ in _INPUTS} == set(TARGETS)
    kept = {folder.name for folder in (*(HERE / "corpus").iterdir(), *(FOUND.iterdir() if FOUND.is_dir() else ()))}
    assert kept == set(TARGETS)


def test_a_fault_is_found_and_its_input_kept(tmp_path: Path) -> None:
    def run(data: bytes) -> None:
        if b"{{" in data:
            raise KeyError("here it is")

    with pytest.raises(KeyError):
        without_atheris(run, [b"some", b"{ing}"], 60, tmp_path)
    (kept,) = tmp_path.iterdir()
    with pytest.raises(KeyError):
        run(kept.read_bytes())
