"""Free memory of the machine."""

from __future__ import annotations

import os
from pathlib import Path


def free_memory() -> int | None:
    """Bytes free on the GPU; without one, bytes that can be taken without swapping, within the limits of a container.

    None where it cannot be told.
    """
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    found = [value for value in (_system(), _container()) if value is not None]
    return min(found) if found else None


def _system() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _container() -> int | None:
    """Of a control group, version 2."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)
