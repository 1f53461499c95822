"""Every input that the fuzzer is given, and every one with which it once found a fault, passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.run import FOUND, HERE, known, without_atheris
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_is_taken_or_refused(name: str) -> None:
    if name == "gguf":
        pytest.importorskip("gguf", reason="needs the extra gguf")
    run = TARGETS[name].load()
    for file in known(name):
        try:
            run(file.read_bytes())
        except BaseException as error:
            error.add_note(f"input: {file}")
            raise


def test_every_target_has_inputs_and_nothing_else_is_kept() -> None:
    assert all(known(name) for name in TARGETS)
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
