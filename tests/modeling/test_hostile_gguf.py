"""GGUF files that say more than they hold are refused before a library believes them."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ift_serve.modeling.checkpoint.files import ModelFilesError
from ift_serve.modeling.checkpoint.gguf_directory import gguf_directory
from ift_serve.modeling.checkpoint.gguf_file import gguf_tensors, is_gguf
from ift_serve.modeling.checkpoint.gguf_header import GgufHeaderError, check_gguf_header
from tests.fuzz.model_files import gguf_seeds

HUGE = 1 << 60


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(values: int = 0, tensors: int = 0, *, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, values)


def array(kind: int, count: int) -> bytes:
    return text("tokens") + struct.pack("<IIQ", 9, kind, count)


def tensor(*shape: int, offset: int = 0, dimensions: int | None = None) -> bytes:
    count = len(shape) if dimensions is None else dimensions
    return text("w") + struct.pack(f"<I{len(shape)}QIQ", count, *shape, 0, offset)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cut off"),
    "magic alone": (b"GGUF", "cut off"),
    "another magic": (b"GGML" + bytes(40), "does not begin"),
    "version 0": (header(version=0), "version 0"),
    "version 1": (header(version=1), "version 1"),
    "values that are not there": (header(values=HUGE), "values are announced"),
    "tensors that are not there": (header(tensors=HUGE), "tensors are announced"),
    "an array of 2^60 numbers": (header(values=1) + array(4, HUGE), "no model has over"),
    "an array of four million numbers": (header(values=1) + array(4, 1 << 22), "cut off"),
    "an array of strings that are not there": (header(values=1) + array(8, 1 << 20), "strings are announced"),
    "an array of one long string": (header(values=1) + array(8, 1) + struct.pack("<Q", HUGE), "cut off"),
    "an array of arrays": (header(values=1) + array(9, 1) + array(9, 1), "array of kind 9"),
    "a long name": (header(values=1) + struct.pack("<Q", HUGE) + bytes(32), "cut off"),
    "a long text": (header(values=1) + text("a") + struct.pack("<IQ", 8, HUGE), "cut off"),
    "an unknown kind": (header(values=1) + text("a") + struct.pack("<I", 77) + bytes(8), "unknown kind"),
    "no alignment": (header(values=1) + text("general.alignment") + struct.pack("<II", 4, 0), "power of two"),
    "alignment a word": (header(values=1) + text("general.alignment") + struct.pack("<I", 8) + text("x"), "power"),
    "no dimensions": (header(tensors=1) + tensor(dimensions=0) + bytes(32), "has 0 dimensions"),
    "2^32 dimensions": (header(tensors=1) + tensor(1, dimensions=2**32 - 1) + bytes(32), "dimensions"),
    "more elements than there are": (header(tensors=1) + tensor(HUGE, HUGE) + bytes(64), "does not fit"),
    "an empty tensor": (header(tensors=1) + tensor(0, 4) + bytes(64), "does not fit"),
    "a place outside": (header(tensors=1) + tensor(4, offset=HUGE) + bytes(64), "does not fit"),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_before_it_is_read(tmp_path: Path, kind: str) -> None:
    content, reason = HOSTILE[kind]
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(GgufHeaderError, match=reason):
        check_gguf_header(file)
    with pytest.raises(ModelFilesError, match=r"model\.gguf"):
        gguf_directory(file)


@pytest.mark.parametrize("cut", [5, 30, 100, 200])
def test_a_right_file_is_taken_and_refused_once_it_is_cut_off(tmp_path: Path, cut: int) -> None:
    pytest.importorskip("gguf", reason="needs the extra gguf")
    for name, content in gguf_seeds().items():
        file = tmp_path / f"{name}.gguf"
        file.write_bytes(content)
        check_gguf_header(file)
        assert [t.name for t in gguf_tensors(file)] == ["w"]
        file.write_bytes(content[:cut])
        with pytest.raises(OSError, match="not a GGUF file, or cut off"):
            gguf_tensors(file)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a directory"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "model.gguf")
    assert not is_gguf(tmp_path / "model.gguf")
    with pytest.raises(ModelFilesError, match="is not a GGUF file"):
        gguf_directory(tmp_path / "model.gguf")
