"""Interface to the side that holds adapter tensors, which alone knows torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ift_serve.engine.adapters.version import AdapterMetadata


@dataclass(frozen=True, slots=True)
class ReadAdapter:
    """What came of reading a directory. ``tensors`` is the host's own."""

    metadata: AdapterMetadata
    tensors: Any


class AdapterTensors(Protocol):
    """The side that has the tensors."""

    @property
    def slots(self) -> int: ...
    def read(self, path: str, root: str) -> ReadAdapter:
        """Read and check a directory that must lie in ``root`` (empty: anywhere), in the loader's thread.

        Raises what is wrong with it."""

    def keep(self, key: str, tensors: Any) -> None:
        """What was read is resident as ``key`` from now on."""

    def place(self, key: str, slot: int) -> None:
        """Have batches find the adapter in ``slot``."""

    def forget(self, key: str, slot: int | None) -> None:
        """Free an adapter that nobody uses, and the slot it was in."""


class NoAdapters:
    """The host of an engine that serves none."""

    slots = 1

    def read(self, path: str, root: str) -> ReadAdapter:
        raise ValueError("this engine serves no adapters")

    def keep(self, key: str, tensors: Any) -> None:
        """Never asked: nothing is ever read."""

    def place(self, key: str, slot: int) -> None:
        """Never asked."""

    def forget(self, key: str, slot: int | None) -> None:
        """Never asked."""
