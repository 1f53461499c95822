"""The collective operations of several ranks on one machine."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as distributed


def join_group(directory: str, rank: int, size: int, device: str) -> None:
    """Wait until all ranks are there. They find one another by a file in ``directory``, which nobody else can read.

    Gloo's connections are bound to the loopback interface, and NCCL's unless the environment names another. Raises
    ValueError where this process is in a group already.
    """
    if distributed.is_initialized():
        raise ValueError("tensor_parallel: this process computes another model in parallel already")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    store = distributed.FileStore(  # type: ignore[attr-defined]
        str(Path(directory) / "ranks"), size
    )
    backend = "gloo" if device == "cpu" else "nccl"
    own = None if device == "cpu" else torch.device("cuda", rank)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, device_id=own)


def leave_group() -> None:
    """Close the connections."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
