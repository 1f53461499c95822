"""Compiles the CPU's kernels beside an engine's start, where `ift-serve compile` has not been run."""

from __future__ import annotations

import logging
import sys
import threading
import time

import torch

from ift_kernels.ahead import Compilation, is_compiled, workers
from ift_serve.engine.config import EngineConfig
from ift_serve.modeling.decoder.linear import has_bf16_products
from ift_serve.system.machine import available_memory, processors

_log = logging.getLogger(__name__)

_PROCESS_BYTES = 800 * 2**20
"""Free memory for each process that compiles: what it may need, and as much for the model that is loaded meanwhile."""


_BY_EVERY_START = (
    "bf16_linear", "fused_add_rms_norm", "paged_decode", "row_statistics", "sample_rows", "silu_and_mul", "write_kv",
)  # fmt: skip


class KernelCompilation:
    """Processes that compile what the engine will need, and later what its adapters will."""

    @classmethod
    def begun(cls, config: EngineConfig) -> KernelCompilation | None:
        """None where there is nothing to compile, or no place for processes that do."""
        if sys.platform != "linux" or not _computes_here(config):
            return None
        from ift_kernels.cpu_simd.storage import kept_code  # imports numba, which a GPU's engine does without

        if kept_code() is None:  # nobody would find what other processes have compiled
            return None
        dtypes, first = _dtypes(config), _needed(config)
        processes = min(processors(), available_memory() // _PROCESS_BYTES)
        return None if processes < 1 or is_compiled(dtypes) else cls(dtypes, first, processes)

    def __init__(self, dtypes: tuple[str, ...], first: tuple[str, ...], processes: int) -> None:
        self._dtypes = dtypes
        self._begun = time.monotonic()
        self._compilation = Compilation(workers(dtypes, first), processes)
        count = sum(map(len, self._compilation.groups))
        _log.info("compiling %d kernels for this processor; `ift-serve compile` does it before a first start", count)
        threading.Thread(target=self._wait, name="kernel compilation", daemon=True).start()

    def _wait(self) -> None:
        if self._compilation.finish(self._dtypes):
            _log.info("kernels compiled", extra={"seconds": round(time.monotonic() - self._begun, 1)})

    def yield_to_serving(self) -> None:
        """The engine is ready: what is still being compiled must not take time from requests."""
        self._compilation.yield_to_others()


def _computes_here(config: EngineConfig) -> bool:
    on_gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    return not on_gpu and config.attention_backend in ("auto", "cpu")


def _needed(config: EngineConfig) -> tuple[str, ...]:
    """Operations that a start waits for. One that is not named here is compiled after them, or when it is needed."""
    return _BY_EVERY_START if config.weights == "auto" else (*_BY_EVERY_START, "quantize_weight", "quantized_linear")


def _dtypes(config: EngineConfig) -> tuple[str, ...]:
    """float32, in which small models are compared, and the one that the model may be computed in."""
    native = has_bf16_products()
    half = config.dtype == "bfloat16" or (config.dtype == "auto" and native)
    return ("float32", "bfloat16") if half else ("float32",)
