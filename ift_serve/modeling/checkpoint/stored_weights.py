"""The tensors of a model directory as they are stored: which files hold them, and a digest of each."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ift_serve.modeling.checkpoint.gguf_file import GGUF_WEIGHTS, gguf_tensors
from ift_serve.modeling.checkpoint.kept_values import KeptValues

if TYPE_CHECKING:
    import torch

_SCHEME = 1
_CHUNK = 1 << 20
_MOST_THREADS = 8
_SETTLED = 2.0
"""Seconds after which a further write surely shows in a file's times, whatever file system it lies on."""


class StoredTensor(NamedTuple):
    """dtype: as torch names it. digest: SHA-256 of the elements, row after row, little-endian."""

    dtype: str
    shape: tuple[int, ...]
    digest: str


def model_directory(path: str) -> Path:
    """Where the files of a model lie: a directory itself, or what its hub id stands for. Raises OSError."""
    from transformers.utils import cached_file

    if os.path.isdir(path):
        return Path(path)
    return Path(str(cached_file(path, "config.json"))).parent


def weight_files(directory: Path, config: Any) -> list[Path]:
    """The files that transformers loads the weights from.

    Raises OSError where it finds none, and where it would load an adapter along with them.
    """
    if (directory / "adapter_config.json").is_file():
        raise OSError(
            f"{directory}: an adapter lies beside the model (adapter_config.json), and transformers would load it into "
            "the model; move the adapter to a directory of its own"
        )
    if (packed := directory / GGUF_WEIGHTS).is_file():
        return [packed]
    named = getattr(config, "transformers_weights", None)
    whole = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
    for name in (named,) if named else whole:
        if (file := directory / name).is_file():
            return _shards(file) if name.endswith(".index.json") else [file]
    raise FileNotFoundError(f"{directory}: holds no weights: none of {', '.join((named,) if named else whole)}")


def _shards(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        return [index.parent / name for name in sorted(names)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(f"{index}: does not say which files hold the weights: {error}") from error


def stored_tensors(files: list[Path]) -> dict[str, StoredTensor]:
    """Every tensor of these files, by name.

    Every byte counts. A file that was read before and has not been written or replaced since is not read again.
    Raises OSError for what cannot be read.
    """
    kept = KeptValues("weights")
    found: dict[str, StoredTensor] = {}
    for file in files:
        key = [_SCHEME, *_identity(file)]
        tensors = _of_json(kept.get(key))
        if tensors is None:
            tensors = _read(file)
            if key != [_SCHEME, *_identity(file)]:
                raise OSError(f"{file}: changed while it was being read; start again when it is complete")
            if _is_settled(file):
                kept.put(key, tensors)
        found.update(tensors)
    return found


def stored_weight(files: list[Path], name: str) -> torch.Tensor | None:
    """One tensor of these files; None where they do not hold it. Raises OSError."""
    from safetensors import safe_open

    for file in files:
        if file.name == GGUF_WEIGHTS:
            continue  # its tensors have other names, and mostly other rows
        if file.suffix != ".safetensors":
            if (value := _unpickle(file).get(name)) is not None:
                return value
            continue
        with safe_open(file, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118
                found: torch.Tensor = tensors.get_tensor(name)
                return found
    return None


def _identity(file: Path) -> tuple[str | int, ...]:
    """What changes with the file's content: the time of change cannot be set back, unlike that of modification."""
    status = file.stat()
    return str(file.resolve()), status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _is_settled(file: Path) -> bool:
    status = file.stat()
    return time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED


def _of_json(value: Any) -> dict[str, StoredTensor] | None:
    try:
        return {name: StoredTensor(dtype, tuple(shape), digest) for name, (dtype, shape, digest) in value.items()}
    except (AttributeError, TypeError, ValueError):
        return None


def _read(file: Path) -> dict[str, StoredTensor]:
    if file.name == GGUF_WEIGHTS:
        return {each.name: StoredTensor(each.dtype, each.shape, each.digest) for each in gguf_tensors(file)}
    return _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickled(file)


_DAMAGED = (ValueError, KeyError, TypeError, AttributeError)


class _Place(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int


_SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


def _read_safetensors(file: Path) -> dict[str, StoredTensor]:
    with file.open("rb") as opened:
        try:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
            header.pop("__metadata__", None)
            places = {name: _place(entry, 8 + length) for name, entry in header.items()}
        except (*_DAMAGED, OverflowError, MemoryError, RecursionError) as error:
            raise OSError(f"{file}: not a safetensors file, or cut off") from error
        digests = _in_threads([partial(_digest_range, opened, place) for place in places.values()])
    return {
        name: StoredTensor(place.dtype, place.shape, digest)
        for (name, place), digest in zip(places.items(), digests, strict=True)
    }


def _place(entry: Any, offset: int) -> _Place:
    begin, end = entry["data_offsets"]
    if not (type(begin) is int and type(end) is int and 0 <= begin <= end):
        raise ValueError("a tensor's place is no place")
    dtype = _SAFETENSORS_DTYPES.get(entry["dtype"], entry["dtype"])
    return _Place(dtype, tuple(entry["shape"]), offset + begin, end - begin)


def _digest_range(file: BufferedReader, place: _Place) -> str:
    digest = hashlib.sha256()
    position, end = place.begin, place.begin + place.size
    while position < end:
        # Read, not mapped: a file that becomes shorter meanwhile is an error, not the end of the process.
        piece = os.pread(file.fileno(), min(_CHUNK, end - position), position)
        if not piece:
            raise OSError(f"{file.name}: shorter than its header says; it may be cut off")
        digest.update(piece)
        position += len(piece)
    return digest.hexdigest()


def _read_pickled(file: Path) -> dict[str, StoredTensor]:
    tensors = _unpickle(file)
    digests = _in_threads([partial(_digest_elements, tensor) for tensor in tensors.values()])
    return {
        name: StoredTensor(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), digest)
        for (name, tensor), digest in zip(tensors.items(), digests, strict=True)
    }


def _unpickle(file: Path) -> dict[str, torch.Tensor]:
    """As transformers reads it: tensors only, nothing that a pickle could run."""
    import pickle
    import zipfile

    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise OSError(f"{file}: cannot be read: {error}") from error
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _digest_elements(tensor: torch.Tensor) -> str:
    import torch

    elements = tensor.detach().contiguous().view(-1)
    return hashlib.sha256(elements.view(torch.uint8).numpy().data).hexdigest()


def _in_threads(work: list[Callable[[], str]]) -> list[str]:
    """Hashing lets go of the interpreter, so several threads do it side by side."""
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda each: each(), work))
