"""Where a model computes, by which kernels, and what its cache holds: from the configuration and the machine."""

from __future__ import annotations

import logging
import os

import torch

from ift_kernels.backend import INVARIANT
from ift_kernels.device import FLOAT8_CAPABILITY, properties
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.runner.kv_cache import bytes_per_block
from ift_serve.modeling.decoder.linear import has_bf16_products
from ift_serve.modeling.decoder.model_loader import LoadedModel
from ift_serve.system.machine import available_memory

_log = logging.getLogger(__name__)


def choose_device(config: EngineConfig) -> str:
    """Raises ValueError where it is not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device: cuda needs a GPU and a build of torch for it, and torch sees none; install torch for CUDA, or "
            "choose cpu"
        )
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def warn_of_slow_dtype(config: EngineConfig, device: str) -> None:
    """Say once, at the start, what a dtype by force costs where the processor does not multiply it."""
    if config.dtype == "bfloat16" and device == "cpu" and not has_bf16_products():
        _log.warning(
            "dtype: this processor does not multiply bfloat16, so every product is several times slower than with "
            "--dtype auto, which keeps the weights in bfloat16 and computes in float32"
        )


def choose_backend(config: EngineConfig, device: str) -> str:
    """The kernels' implementation, named. Raises ValueError where it cannot run."""
    if config.batch_invariant and (device == "cuda" or config.attention_backend == "triton"):
        return INVARIANT
    if config.attention_backend == "auto":
        return "triton" if device == "cuda" else "cpu"
    if config.attention_backend == "cpu" and device != "cpu":
        raise ValueError(f"attention_backend: the compiled CPU kernels cannot run on {device}; choose auto")
    if config.attention_backend == "triton" and device == "cpu" and not os.environ.get("TRITON_INTERPRET"):
        raise ValueError("attention_backend: triton needs a GPU; choose auto")
    return config.attention_backend


def free_memory(device: str) -> int:
    """Bytes of the device that nobody holds."""
    if device != "cpu":
        return int(torch.cuda.mem_get_info()[0])
    return available_memory()


def block_count(
    config: EngineConfig, block_size: int, model: LoadedModel, device: str, dtype: torch.dtype, free: int
) -> int:
    """Blocks for the cache: as asked, else what all sequences at full context need, within a share of free memory:
    a quarter on the CPU, which others use too, most of a GPU. free: bytes, of all ranks together."""
    if config.total_blocks is not None:
        return config.total_blocks
    size = bytes_per_block(model.geometry, block_size, dtype, device)
    wanted = config.max_sequences * -(-model.context_length // block_size)
    share = free // 4 if device == "cpu" else free * 85 // 100
    budget = share if config.cache_bytes is None else config.cache_bytes
    blocks = min(wanted, budget // size)
    if blocks < 1:
        raise ValueError(f"cache_bytes: {budget} bytes do not hold one block of {size} bytes")
    return blocks


def choose_cache_dtype(config: EngineConfig, backend: str, dtype: torch.dtype) -> torch.dtype:
    """Of the cache, for a model that computes in ``dtype``. Raises ValueError where it cannot be read there."""
    if config.cache_dtype == "auto":
        return dtype
    if backend == "cpu":
        # No vector of a CPU widens e4m3, its steps wait for weights and not for the cache, and host memory is ample.
        raise ValueError("cache_dtype: fp8 is read by the Triton kernels, which need a GPU; choose auto")
    if torch.cuda.is_available() and properties(torch.empty(0, device="cuda")).capability < FLOAT8_CAPABILITY:
        raise ValueError("cache_dtype: this GPU has no float8 (Ada, Hopper and later do); choose auto")
    return torch.float8_e4m3fn
