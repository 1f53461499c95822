"""Limits of adapters in host memory: their number and their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.modeling.adapter_format.config import IFT_WEIGHTS, PEFT_WEIGHTS

_SOON = 1.0
"""Seconds after which a load may find room that requests hold now."""
_LARGEST_CONVERSION = 4
"""Weights may be kept in a smaller type than they are stored in."""


@dataclass(frozen=True, slots=True)
class AdapterLimits:
    """How many adapters may be in host memory at once, and how many bytes they may take there; 0: no limit."""

    count: int = 0
    bytes: int = 0

    @classmethod
    def within(cls, count: int, asked: int | None, free: int, cache: int) -> AdapterLimits:
        """``asked`` bytes, or half of what the cache leaves of ``free`` memory.

        ``cache``: bytes that it has not taken yet and may. Where it may take nearly all, an eighth of what is free.
        """
        return cls(count, asked or max(free - cache, free // 4, 2) // 2)

    def have_room(self, count: int, total: int, size: int) -> bool:
        """Whether one more, of ``size`` bytes if known, fits beside ``count`` others of ``total`` bytes."""
        return not (self.count and count >= self.count) and not (self.bytes and total + size > self.bytes)

    def check(self, name: str, count: int, total: int, size: int, *, evicts: bool) -> None:
        """Raise RefusedError (OVERLOADED) unless ``name``, of ``size`` bytes if known, fits beside the others.

        ``evicts``: whether the others are only those that cannot be evicted, which soon may be.
        """
        soon = _SOON if evicts else 0.0
        advice = "requests use all of them; try again later" if evicts else "unload one first"
        if self.count and count >= self.count:
            text = f"{count} adapters are loaded, as many as this server keeps (max_adapters); {advice}"
            raise RefusedError(FailureKind.OVERLOADED, text, "", soon)
        if self.bytes and total + size > self.bytes:
            text = (
                f"with {name} the loaded adapters would take {_mib(total + size)}, and this server keeps "
                f"{_mib(self.bytes)} (max_adapter_bytes); {advice}, or raise it"
            )
            raise RefusedError(FailureKind.OVERLOADED, text, "", soon)

    def check_files(self, path: str) -> None:
        """The same for weights that could not fit even alone, before they are read."""
        files = [Path(path, name) for name in (PEFT_WEIGHTS, IFT_WEIGHTS)]
        size = sum(file.stat().st_size for file in files if file.is_file())
        if self.bytes and size > _LARGEST_CONVERSION * self.bytes:
            text = f"its files take {_mib(size)}, and this server keeps {_mib(self.bytes)} (max_adapter_bytes)"
            raise RefusedError(FailureKind.OVERLOADED, text)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
