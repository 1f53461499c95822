"""How many adapters an engine keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ift_serve.engine.adapters.version import AdapterVersion
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.modeling.adapter_format.config import IFT_WEIGHTS, PEFT_WEIGHTS

_LARGEST_CONVERSION = 4
"""Weights may be kept in a smaller type than they are stored in."""


@dataclass(frozen=True, slots=True)
class AdapterLimits:
    """How many adapters may be resident, and how many bytes of host memory they may take; 0: no limit."""

    count: int = 0
    bytes: int = 0

    def check(self, name: str, others: list[AdapterVersion], size: int) -> None:
        """Raise RefusedError (OVERLOADED) unless ``name``, of ``size`` bytes if known, fits beside the others."""
        if self.count and len(others) >= self.count:
            text = f"{len(others)} adapters are loaded, as many as this server keeps (max_adapters); unload one first"
            raise RefusedError(FailureKind.OVERLOADED, text)
        total = sum(other.metadata.bytes for other in others) + size
        if self.bytes and total > self.bytes:
            text = (
                f"with {name} the loaded adapters would take {_mib(total)}, and this server keeps {_mib(self.bytes)} "
                "(max_adapter_bytes); unload some first, or raise it"
            )
            raise RefusedError(FailureKind.OVERLOADED, text)

    def check_files(self, path: str) -> None:
        """The same for weights that could not fit even alone, before they are read."""
        files = [Path(path, name) for name in (PEFT_WEIGHTS, IFT_WEIGHTS)]
        size = sum(file.stat().st_size for file in files if file.is_file())
        if self.bytes and size > _LARGEST_CONVERSION * self.bytes:
            text = f"its files take {_mib(size)}, and this server keeps {_mib(self.bytes)} (max_adapter_bytes)"
            raise RefusedError(FailureKind.OVERLOADED, text)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
