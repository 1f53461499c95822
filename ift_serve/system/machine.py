"""Processors and memory that this process may use, within the limits of its control groups.

A container's limits are those of its own group and of every group around it, in version 1 and 2 alike; "max", and
limits larger than the machine, are none.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_MOUNTS = Path("/proc/self/mountinfo")


def processors() -> int:
    """Threads that can compute at once: by affinity, which holds cpusets, and by the groups' quotas."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in cpu_quotas())]))


def physical_memory() -> int:
    """Bytes of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_limit() -> int:
    """Bytes that this process and its neighbours in the group may use at most: of the machine, or a group's."""
    return min([physical_memory(), *(limit for limit, _ in _memory())])


def available_memory() -> int:
    """Bytes that can be taken now: what the machine has left, caches of files included, within every group's rest."""
    return max(0, min([_machine_available(), *(limit - used for limit, used in _memory())]))


def _machine_available() -> int:
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


def cpu_quotas(groups: Path = _GROUPS, mounts: Path = _MOUNTS) -> list[float]:
    """Processors by every quota that holds for this process."""
    found = []
    for folder in _folders("cpu", groups, mounts):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        quota = quota or _text(folder / "cpu.cfs_quota_us")
        period = period or _text(folder / "cpu.cfs_period_us")
        if _number(quota) > 0 and _number(period) > 0:
            found.append(_number(quota) / _number(period))
    return found


def _memory(groups: Path = _GROUPS, mounts: Path = _MOUNTS) -> list[tuple[int, int]]:
    """Limit and bytes used that cannot be given back at once, of every group that has a limit below the machine's."""
    found = []
    for folder in _folders("memory", groups, mounts):
        for limit_name, used_name, reclaimable in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.high", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit = _number(_text(folder / limit_name))
            if 0 <= limit < physical_memory():
                statistics = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines())
                used = max(0, _number(_text(folder / used_name))) - max(0, _number(statistics.get(reclaimable, "0")))
                found.append((limit, max(0, used)))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(text: str) -> int:
    """-1 for "max" and for what is not there."""
    try:
        return int(text)
    except ValueError:
        return -1


def _folders(controller: str, groups: Path, mounts: Path) -> Iterator[Path]:
    """The folders of the groups that this process is in for a controller, the innermost first."""
    for line in _text(groups).splitlines():
        number, controllers, path = line.split(":", 2)
        second = number == "0" and not controllers
        if not second and controller not in controllers.split(","):
            continue
        for root, mount in _mounted(controller, mounts, second=second):
            # A container may see its group as the root of the mount, or the whole tree.
            inside = path if root == "/" else path.removeprefix(root) if path.startswith(root) else "/"
            folder = mount / inside.strip("/")
            while folder.is_relative_to(mount):
                yield folder
                if folder == mount:
                    break
                folder = folder.parent


def _mounted(controller: str, mounts: Path, *, second: bool) -> Iterator[tuple[str, Path]]:
    """Root within the hierarchy and mount point of every mount of it."""
    for line in _text(mounts).splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if (kind[0] == "cgroup2") if second else (kind[0] == "cgroup" and controller in kind[2].split(",")):
            yield fields[3].replace("\\040", " "), Path(fields[4].replace("\\040", " "))
