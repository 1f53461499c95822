"""Resource usage of a process, seen from outside. Linux only; elsewhere time itself stands for it."""

from __future__ import annotations

import os
import time

Usage = tuple[int, ...]


def usage(pid: int) -> Usage:
    """Numbers that grow while the process or its children compute or read: computing time, page faults, bytes read."""
    try:
        own = _numbers(pid)
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = [_numbers(int(child)) for child in file.read().split()]
    except OSError:
        return (time.monotonic_ns(),)
    return tuple(map(sum, zip(own, *children, strict=True)))


def resident_bytes(pid: int) -> int | None:
    """Memory of a process that is in the machine now, files it shares included; None where that cannot be told."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _numbers(pid: int) -> Usage:
    """Major faults, user and system time with those of children that ended, and bytes fetched from disks."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[9]), sum(map(int, fields[11:15])), _bytes_read(pid)


def _bytes_read(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/io") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("read_bytes")), 0)
    except OSError:  # not every container shows it
        return 0
