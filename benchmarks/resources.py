"""What the server's processes hold: memory, descriptors, children."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

_WORKERS = ("ift_serve.engine.worker", "soak_worker")


@dataclass(frozen=True)
class Held:
    """Of the front process; ``engine_mib`` of its engine."""

    front_mib: float
    descriptors: int
    children: int
    engine_mib: float


def engine_of(front: int) -> psutil.Process | None:
    """The engine process of that front, if it has one now."""
    for child in psutil.Process(front).children(recursive=True):
        try:
            if any(worker in child.cmdline() for worker in _WORKERS) and child.status() != psutil.STATUS_ZOMBIE:
                return child
        except psutil.NoSuchProcess:
            continue
    return None


def held(front: int) -> Held:
    """Now."""
    process = psutil.Process(front)
    engine = engine_of(front)
    return Held(
        round(process.memory_info().rss / 2**20, 1),
        process.num_fds(),
        len(process.children(recursive=True)),
        0.0 if engine is None else round(engine.memory_info().rss / 2**20, 1),
    )
