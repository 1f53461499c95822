"""Reads an untrusted safetensors file: the header first, the tensors once all of it is known good."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedReader
from typing import TYPE_CHECKING, Any, Protocol

from ift_serve.modeling.adapter_format.errors import AdapterError, quoted
from ift_serve.modeling.adapter_format.safe_file import parse_object

if TYPE_CHECKING:
    from torch import Tensor

_HEADER_SLACK = 256 << 10
_LONGEST_ENTRY = 256
_MOST_DIMENSIONS = 8
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_MEMORY_SHARE = 0.9


class Digest(Protocol):
    """What sees every byte of the file, in order."""

    def update(self, content: bytearray, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of the file; ``begin`` and ``end`` count bytes after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """A safetensors file whose header is well-formed and covers the file exactly.

    expected: the names it should hold, which bound the size of its header; the caller compares them. Every byte that
    is read goes into the digest. Raises AdapterError, naming the file and the tensor.
    """

    def __init__(self, name: str, file: BufferedReader, digest: Digest, expected: Iterable[str]) -> None:
        self.name = name
        self._file = file
        self._digest = digest
        size = file.seek(0, 2)
        file.seek(0)
        prefix = self._take(min(8, size))
        length = int.from_bytes(prefix, "little")
        if size < 10 or length > size - 8:
            raise AdapterError(f"{name}: {size} bytes with a header of {length}: not a safetensors file, or cut off")
        largest = _HEADER_SLACK + sum(len(name) + _LONGEST_ENTRY for name in expected)
        if length > largest:
            raise AdapterError(f"{name}: a header of {length} bytes; an adapter of this base model has under {largest}")
        self.entries = self._entries(parse_object(name, self._take(length)), size - 8 - length)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor."""
        return {entry.name: entry.shape for entry in self.entries}

    def _take(self, count: int) -> bytearray:
        content = bytearray(count)
        if self._file.readinto(content) != count:
            raise AdapterError(f"{self.name}: became shorter while it was being read")
        self._digest.update(content)
        return content

    def _entries(self, header: dict[str, Any], available: int) -> list[Entry]:
        metadata = header.pop("__metadata__", None)
        if metadata is not None and not (
            isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
        ):
            raise AdapterError(f"{self.name}: __metadata__: must be an object of strings")
        entries = [self._entry(name, fields) for name, fields in header.items()]
        entries.sort(key=lambda entry: entry.begin)
        position = 0
        for entry in entries:
            if entry.begin != position:
                raise AdapterError(f"{self.name}: {quoted(entry.name)}: overlaps the tensor before it or leaves a gap")
            position = entry.end
        if position != available:
            raise AdapterError(
                f"{self.name}: {available} bytes of tensors where the header says {quoted(position)}; the file may be "
                "cut off"
            )
        return entries

    def _entry(self, name: str, fields: Any) -> Entry:
        shown = f"{self.name}: {quoted(name)}"
        if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
            raise AdapterError(f"{shown}: its entry in the header is damaged")
        dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _SIZES:
            raise AdapterError(f"{shown}: dtype {quoted(dtype)}: adapters are of {', '.join(_SIZES)}")
        if not (_are_sizes(shape) and len(shape) <= _MOST_DIMENSIONS and _are_sizes(offsets) and len(offsets) == 2):
            raise AdapterError(f"{shown}: its shape or place in the header is damaged")
        size = _SIZES[dtype]
        for dimension in shape:
            size *= dimension
        if size == 0 or offsets[1] - offsets[0] != size:
            raise AdapterError(
                f"{shown}: shape {quoted(shape)} of {dtype} is empty or does not fit its place in the file"
            )
        return Entry(name, dtype, tuple(shape), offsets[0], offsets[1])

    def read(self) -> dict[str, Tensor]:
        """All tensors, finite, each with memory of its own; float64 becomes float32."""
        import torch

        self._check_memory()
        found = {}
        for entry in self.entries:
            buffer = self._take(entry.end - entry.begin)
            value = torch.frombuffer(buffer, dtype=getattr(torch, _NAMES[entry.dtype])).view(entry.shape)
            if value.dtype == torch.float64:
                value = value.float()
            if not torch.isfinite(value).all():
                raise AdapterError(f"{self.name}: {quoted(entry.name)}: holds NaN or infinity")
            found[entry.name] = value
        return found

    def _check_memory(self) -> None:
        needed = self.entries[-1].end if self.entries else 0
        free = _free_memory()
        if free is not None and needed > _MEMORY_SHARE * free:
            raise AdapterError(f"{self.name}: {needed >> 20} MiB of tensors, and {free >> 20} MiB of memory are free")


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 48 for item in value)


def _free_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            line = next((line for line in file if line.startswith("MemAvailable:")), "")
    except OSError:
        return None
    return int(line.split()[1]) << 10 if line else None
