"""Reads the files of a directory that nobody vouches for."""

from __future__ import annotations

import itertools
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ift_serve.modeling.adapters.weights import AdapterError

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_JSON = 1 << 20
_LARGEST_HEADER = 8 << 20
_MOST_TENSORS = 100_000
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


class SafeDirectory:
    """An adapter directory. Nothing outside it is opened, and nothing that is not a regular file.

    root: where links may lead as well, such as a store that several directories share; None: nowhere else.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        try:
            self.path = path.resolve(strict=True)
        except (OSError, RuntimeError):
            raise AdapterError(f"{path.name}: there is no such directory") from None
        if not self.path.is_dir():
            raise AdapterError(f"{path.name}: not a directory")
        self._root = self.path if root is None else root.resolve()
        if not self.path.is_relative_to(self._root):
            raise AdapterError(f"{path.name}: leads out of the adapter root")

    def names(self) -> list[str]:
        """Names of the files, sorted."""
        return sorted(entry.name for entry in os.scandir(self.path))

    def refuse_unsafe(self) -> None:
        """Raise AdapterError for files that could run code when loaded."""
        for name in self.names():
            if name.lower().endswith(_UNSAFE):
                raise AdapterError(f"{name}: pickled files are never read; save the adapter as safetensors")

    def read(self, name: str, largest: int) -> bytes | None:
        """The content of a file of at most ``largest`` bytes; None where there is none."""
        try:
            target = (self.path / name).resolve(strict=True)
        except FileNotFoundError:
            if (self.path / name).is_symlink():
                raise AdapterError(f"{name}: the link leads nowhere") from None
            return None
        except (OSError, RuntimeError) as error:
            raise AdapterError(f"{name}: cannot be opened: {error}") from None
        if not (target.is_relative_to(self.path) or target.is_relative_to(self._root)):
            raise AdapterError(f"{name}: leads out of the adapter directory")
        try:
            handle = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            raise AdapterError(f"{name}: cannot be opened: {error.strerror}") from None
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise AdapterError(f"{name}: not a regular file")
            if found.st_size > largest:
                raise AdapterError(f"{name}: {found.st_size} bytes; an adapter of this model has at most {largest}")
            return file.read(largest + 1)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """An object; None where there is no such file."""
        raw = self.read(name, _LARGEST_JSON)
        if raw is None:
            return None
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise AdapterError(f"{name}: not JSON: {str(error)[:200]}") from None
        if not isinstance(value, dict):
            raise AdapterError(f"{name}: holds no object")
        return value


def _header(name: str, raw: bytes) -> dict[str, Any]:
    if len(raw) < 8:
        raise AdapterError(f"{name}: {len(raw)} bytes are not a safetensors file; it may be cut off")
    length = int.from_bytes(raw[:8], "little")
    if length > min(_LARGEST_HEADER, len(raw) - 8):
        raise AdapterError(f"{name}: the header claims {length} bytes; the file may be cut off or not safetensors")
    try:
        header = json.loads(raw[8 : 8 + length])
    except (ValueError, RecursionError):
        raise AdapterError(f"{name}: the header is not JSON") from None
    if not isinstance(header, dict):
        raise AdapterError(f"{name}: the header holds no object")
    header.pop("__metadata__", None)
    if len(header) > _MOST_TENSORS:
        raise AdapterError(f"{name}: {len(header)} tensors; at most {_MOST_TENSORS}")
    return {"tensors": header, "start": 8 + length}


def _check_entry(name: str, tensor: str, entry: Any, available: int) -> tuple[int, int, tuple[int, ...]]:
    """Bounds and shape of a tensor whose header entry is as it must be."""
    shown = f"{name}: {tensor[:120]}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise AdapterError(f"{shown}: the header entry is damaged")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _SIZES:
        raise AdapterError(f"{shown}: dtype {str(kind)[:20]} is not a floating-point type that adapters have")
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if any(type(n) is not int or n < 0 for n in numbers) or len(offsets) != 2 or len(shape) > 4:
        raise AdapterError(f"{shown}: the header entry is damaged")
    size = _SIZES[kind]
    for dimension in shape:
        size *= dimension
    if offsets[1] - offsets[0] != size or offsets[1] > available:
        raise AdapterError(f"{shown}: its data is not where the header says; the file may be cut off")
    return offsets[0], offsets[1], tuple(shape)


def read_tensors(name: str, raw: bytes) -> dict[str, Tensor]:
    """All tensors of a safetensors file, finite. Everything is checked before any is made.

    Raises AdapterError with the tensor's name.
    """
    import torch

    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    header = _header(name, raw)
    entries, start = header["tensors"], header["start"]
    bounds = {t: _check_entry(name, t, entry, len(raw) - start) for t, entry in entries.items()}
    places = sorted((first, end) for first, end, _ in bounds.values())
    if any(end > first for (_, end), (first, _) in itertools.pairwise(places)):
        raise AdapterError(f"{name}: tensors overlap")
    found = {}
    for tensor, (first, end, shape) in bounds.items():
        kind = kinds[entries[tensor]["dtype"]]
        if first == end:
            raise AdapterError(f"{name}: {tensor[:120]}: is empty")
        # Copied, so that the tensor does not hold the whole file.
        value = torch.frombuffer(bytearray(raw[start + first : start + end]), dtype=kind).view(shape)
        if not torch.isfinite(value).all():
            raise AdapterError(f"{name}: {tensor[:120]}: holds NaN or infinity")
        found[tensor] = value
    return found
