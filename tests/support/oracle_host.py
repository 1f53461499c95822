"""An adapter host without tensors."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from zlib import crc32

from ift_serve.engine.adapters.host import ReadAdapter
from ift_serve.engine.adapters.version import AdapterMetadata


class OracleHost:
    """Adapters without weights: the path says what they are (``broken``, ``heads...``, or anything else).

    What stands behind a colon is a file: reading the adapter takes until it is there. ``damaged``: paths whose files
    cannot be read any more.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.resident: dict[str, str] = {}
        self.placed: dict[int, str] = {}
        self.damaged: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def read(self, path: str, root: str) -> ReadAdapter:
        self.gate.wait(10)
        _, _, awaited = path.partition(":")
        while awaited and not Path(awaited).exists():
            time.sleep(0.005)
        if path.startswith("broken") or path in self.damaged:
            raise ValueError(f"{path}: nothing but noise")
        heads = path.startswith("heads")
        version = f"{crc32(path.encode()):016x}"[:16]
        metadata = AdapterMetadata(version, 4, ["lora"], 1000, heads, not heads, path.startswith("whole"))
        return ReadAdapter(metadata, path)

    def keep(self, key: str, tensors: str) -> None:
        assert key not in self.resident
        self.resident[key] = tensors

    def place(self, key: str, slot: int) -> None:
        assert key in self.resident
        self.placed[slot] = key

    def forget(self, key: str, slot: int | None) -> None:
        del self.resident[key]
        if slot is not None:
            assert self.placed.pop(slot) == key
