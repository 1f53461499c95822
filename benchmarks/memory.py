"""What a process's memory is made of: the system's view, the C allocator's, Python's, and torch's tensors."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

_STATUS = {"VmRSS": "rss", "RssAnon": "anonymous", "RssFile": "file", "VmHWM": "peak"}
_FIELDS = (
    "arena",
    "free_chunks",
    "fast_chunks",
    "mapped_chunks",
    "mapped",
    "_unused",
    "fast_free",
    "used",
    "free",
    "top",
)
_BYTES = ("arena", "mapped", "used", "free", "top")
_TYPES = 24
_CONTAINERS = (dict, list, set, deque, Counter, OrderedDict)


class _MallInfo(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def mib(count: float) -> float:
    """Bytes as MiB, to two digits after the point."""
    return round(count / 2**20, 2)


def system() -> dict[str, float]:
    """MiB by /proc: resident, of it anonymous and of files, and the largest so far."""
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return {shown: round(int(fields[name].split()[0]) / 1024, 2) for name, shown in _STATUS.items() if name in fields}


def allocator() -> dict[str, float]:
    """MiB by glibc's malloc over all arenas: ``used`` by the program, ``free`` in its hands, ``mapped`` one by one.

    Empty with another C library.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return {}
    library.mallinfo2.restype = _MallInfo
    info = library.mallinfo2()
    return {name: mib(getattr(info, name)) for name in _BYTES} | {"arenas": float(_arenas(library))}


def _arenas(library: ctypes.CDLL) -> int:
    """The number of heaps in ``malloc_info``'s report."""
    library.open_memstream.restype = ctypes.c_void_p
    buffer, size = ctypes.c_void_p(), ctypes.c_size_t()
    stream = library.open_memstream(ctypes.byref(buffer), ctypes.byref(size))
    library.malloc_info(0, ctypes.c_void_p(stream))
    library.fclose(ctypes.c_void_p(stream))
    text = ctypes.string_at(buffer, size.value)
    library.free(buffer)
    return len(ElementTree.fromstring(text).findall("heap"))


def objects() -> dict[str, Any]:
    """Python's blocks, tracked objects by type, entries of all containers; where torch is in use, its tensors."""
    tracked = gc.get_objects()
    types = Counter(f"{type(o).__module__}.{type(o).__qualname__}" for o in tracked)
    return {
        "blocks": sys.getallocatedblocks(),
        "tracked": len(tracked),
        "types": dict(types.most_common(_TYPES)),
        "entries": sum(len(o) for o in tracked if type(o) in _CONTAINERS),
    } | (_tensors(tracked) if "torch" in sys.modules else {})


def _tensors(tracked: list[Any]) -> dict[str, Any]:
    """How many, and the MiB of their storages."""
    import torch

    storages = {}
    count = 0
    for one in tracked:
        if issubclass(type(one), torch.Tensor):
            count += 1
            if one.is_mkldnn or one.is_meta:
                continue  # weights in oneDNN's own layout have no storage that torch knows of
            storage = one.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return {"tensors": count, "tensor_mib": mib(sum(storages.values()))}


def snapshot() -> dict[str, Any]:
    """All of it."""
    return {"system": system(), "allocator": allocator(), "objects": objects()}


def record(path: Path, seconds: float, more: Callable[[], dict[str, Any]]) -> None:
    """Append a line of JSON every so many seconds, for ever: what the process holds, and what ``more`` says."""
    begun = time.monotonic()
    with path.open("a") as file:
        while True:
            line = {"pid": os.getpid(), "at": round(time.monotonic() - begun, 1), **more(), **snapshot()}
            print(json.dumps(line), file=file, flush=True)
            time.sleep(seconds)
