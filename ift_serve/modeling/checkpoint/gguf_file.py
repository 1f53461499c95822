"""A GGUF file: whether it is one, what its tensors are, and their codes where they have few bits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ift_serve.modeling.checkpoint.gguf_header import MAGIC, check_gguf_header

GGUF_WEIGHTS = "weights.gguf"
"""Name, in a model's directory, of the GGUF file that holds its weights."""
_GROUP = 32


class GgufCodes(NamedTuple):
    """A weight ``[N, K]``: codes int8 (8 bits) or uint8 (4 bits), scales and minimums ``[N, K / 32]`` float16."""

    name: str
    bits: int
    codes: NDArray[Any]
    scales: NDArray[np.float16]
    minimums: NDArray[np.float16] | None

    def dense(self) -> NDArray[np.float32]:
        """``[N, K]`` float32: what the file says that the codes stand for."""
        groups = self.codes.reshape(len(self.codes), -1, _GROUP).astype(np.float32)
        scales = self.scales.astype(np.float32)[..., None]
        if self.minimums is not None:
            groups = groups * scales + self.minimums.astype(np.float32)[..., None]
        else:
            groups = (groups - (8 if self.bits == 4 else 0)) * scales
        return groups.reshape(self.codes.shape)


class GgufTensor(NamedTuple):
    """dtype: the file's word for its kind, such as ``q4_1``. shape: rows first. digest: SHA-256 of its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: str


def is_gguf(path: str | Path) -> bool:
    """Whether a path is a GGUF file by its first bytes."""
    try:
        if not Path(path).is_file():  # a pipe would be waited for
            return False
        with Path(path).open("rb") as opened:
            return opened.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def gguf_tensors(file: Path) -> list[GgufTensor]:
    """Every tensor of the file. Raises OSError."""
    return [
        GgufTensor(
            tensor.name,
            tensor.tensor_type.name.lower(),
            tuple(int(size) for size in reversed(tensor.shape)),
            hashlib.sha256(np.ascontiguousarray(tensor.data).view(np.uint8).data).hexdigest(),
        )
        for tensor in _reader(file).tensors
    ]


def gguf_codes(file: Path) -> Iterator[GgufCodes]:
    """The matrices of kinds Q8_0, Q4_0 and Q4_1, whose codes can be multiplied as they are. Raises OSError."""
    for tensor in _reader(file).tensors:
        decode = _DECODERS.get(tensor.tensor_type.name)
        if decode is not None and len(tensor.shape) == 2:
            inputs, outputs = (int(size) for size in tensor.shape)
            blocks = np.ascontiguousarray(tensor.data).view(np.uint8).reshape(outputs, inputs // _GROUP, -1)
            yield decode(tensor.name, blocks)


def _reader(file: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise OSError(f"{file}: GGUF files need a package; pip install 'ift-serve[gguf]'") from error
    try:
        check_gguf_header(file)
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise OSError(f"{file}: not a GGUF file, or cut off: {error}") from error


def _half(blocks: NDArray[np.uint8], start: int) -> NDArray[np.float16]:
    return np.ascontiguousarray(blocks[..., start : start + 2]).view(np.float16)[..., 0]


def _nibbles(blocks: NDArray[np.uint8], start: int) -> NDArray[np.uint8]:
    """16 bytes: the lower halves are inputs 0 to 15 of the group, the upper ones 16 to 31."""
    packed = blocks[..., start : start + _GROUP // 2]
    return np.concatenate((packed & 15, packed >> 4), -1).reshape(len(blocks), -1)


def _q8_0(name: str, blocks: NDArray[np.uint8]) -> GgufCodes:
    codes = np.ascontiguousarray(blocks[..., 2:]).view(np.int8).reshape(len(blocks), -1)
    return GgufCodes(name, 8, codes, _half(blocks, 0), None)


def _q4_0(name: str, blocks: NDArray[np.uint8]) -> GgufCodes:
    return GgufCodes(name, 4, _nibbles(blocks, 2), _half(blocks, 0), None)


def _q4_1(name: str, blocks: NDArray[np.uint8]) -> GgufCodes:
    return GgufCodes(name, 4, _nibbles(blocks, 4), _half(blocks, 0), _half(blocks, 2))


_DECODERS: dict[str, Callable[[str, NDArray[np.uint8]], GgufCodes]] = {"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1}
