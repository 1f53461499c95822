"""What came of comparing a model with transformers, kept for later starts of the same model by the same code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import ift_kernels
from ift_serve.modeling.checkpoint.kept_values import KeptValues
from ift_serve.modeling.decoder.model_loader import LoadedModel

_LIBRARIES = ("torch", "transformers", "numba", "triton")


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """Of a model that may be served. ``windows``: of its layers, where they stand in its own masks alone."""

    fuses: bool
    windows: tuple[int, ...] | None = None


class KeptChecks:
    """The outcome for one model, as one engine would serve it.

    It holds for the weights' fingerprint and bits, configuration, dtype, device and backend, and for the versions of
    all code that computes or compares: anything else is compared again.
    """

    def __init__(self, loaded: LoadedModel, backend: str, block_size: int, weights: str, ranks: int = 1) -> None:
        device = next(loaded.model.parameters()).device
        self._values = KeptValues("checks")
        self._key = {
            "fingerprint": loaded.fingerprint,
            "class": loaded.architecture,
            "dtype": str(loaded.dtype),
            "context_length": loaded.context_length,
            "backend": backend,
            "block_size": block_size,
            "weights": weights,
            "ranks": ranks,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
            "threads": torch.get_num_threads(),
            "code": _code(),
            "libraries": _versions(),
        }

    def outcome(self) -> CheckOutcome | None:
        """Of an earlier start; None where there was none."""
        kept = self._values.get(self._key)
        if not isinstance(kept, dict) or not isinstance(kept.get("fuses"), bool):
            return None
        windows = kept.get("windows")
        return CheckOutcome(kept["fuses"], None if windows is None else tuple(map(int, windows)))

    def keep(self, outcome: CheckOutcome) -> None:
        """For later starts, where anything can be kept."""
        windows = None if outcome.windows is None else list(outcome.windows)
        self._values.put(self._key, {"fuses": outcome.fuses, "windows": windows})


def _processor() -> str:
    from llvmlite import binding

    return f"{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"


@cache
def _code() -> str:
    """A digest of this project's sources that models pass through."""
    serve = Path(__file__).parents[2]
    roots = (Path(str(ift_kernels.__file__)).parent, serve / "engine", serve / "modeling")
    digest = blake2b(digest_size=16)
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _versions() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
