"""How many files the process may have open."""

from __future__ import annotations

import contextlib
import logging

_log = logging.getLogger(__name__)
_DESCRIPTORS_OF_OUR_OWN = 256


def allow_descriptors(connections: int, option: str) -> None:
    """Raise the process's limit of open files to what the connections may take, as far as the system lets it.

    ``option``: where an operator lowers their number.
    """
    try:
        import resource
    except ImportError:  # not on Windows
        return
    needed = connections + _DESCRIPTORS_OF_OUR_OWN
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < needed:
        _log.warning(
            "%d open files are allowed, but %d connections may need %d; raise `ulimit -n` or lower %s",
            wanted,
            connections,
            needed,
            option,
        )
