"""Where machine code is kept between starts, and which code is valid: that of these sources, for this processor.

The place is the first of these that holds all of it already, or can be written: ``$IFT_KERNELS``, numba's own
``$NUMBA_CACHE_DIR``, the package's own directory, and the private directory for kernels of ``cache_directory``. So code
that was compiled at install is used where nothing can be written. A place is passed over where others than this user,
root and the owner of the package can write: they would decide what is run.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import sys
import time
from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from pathlib import Path

import llvmlite
import numba
from llvmlite import binding
from numba import config

from ift_kernels.cache_directory import cache_directory

_log = logging.getLogger(__name__)
_PACKAGE = Path(__file__).parents[1]
_PAUSE, _LONGEST_WAIT = 0.02, 8.0
"""Seconds between looks at another's compilation, and of all of them."""
DTYPES = ("float32", "bfloat16")
"""Dtypes that machine code is compiled for, a worker for each."""


@cache
def sources() -> str:
    """Stamp of the machine code kept on disk: changes with any source of this package.

    numba's own looks at the worker's file alone, not at those it calls into, and would run what an upgrade replaced.
    """
    digest = blake2b(digest_size=16)
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _target() -> str:
    """What machine code depends on beside its sources: the processor, or the one that numba is told of, and tools."""
    cpu = config.CPU_NAME or binding.get_host_cpu_name()
    features = config.CPU_FEATURES
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    return repr((sources(), sys.version_info[:2], numba.__version__, llvmlite.__version__, cpu, features))


def _marker(directory: Path, dtype: str) -> Path:
    return directory / f"{dtype}-{blake2b(_target().encode(), digest_size=16).hexdigest()}.complete"


def is_complete(directory: Path | None, dtypes: tuple[str, ...] = DTYPES) -> bool:
    """Whether a directory holds every worker of these dtypes."""
    return directory is not None and all(_marker(directory, dtype).exists() for dtype in dtypes)


def mark_complete(directory: Path, dtypes: tuple[str, ...] = DTYPES) -> None:
    """Note that it does. Raises OSError."""
    for dtype in dtypes:
        _marker(directory, dtype).touch()


def _places() -> Iterator[tuple[Path, bool]]:
    """The places to try, and whether each was asked for by name."""
    if own := os.environ.get("IFT_KERNELS"):
        yield Path(own).absolute(), True
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR).absolute(), True
    yield _PACKAGE / "__pycache__" / "machine_code", False


@cache
def kept_code() -> Path | None:
    """The directory of machine code; None where there is none, and kernels are compiled anew at each start."""
    for place, asked in _places():
        if (stranger := _who_else_writes(place)) is not None:
            _log.warning("%s: %s can write there, so no kernels are taken from it; chmod or chown it", place, stranger)
            continue
        if is_complete(place) or _is_writable(place):
            return place
        if asked:
            _log.warning("%s: cannot be written, and does not hold the kernels of this version and processor", place)
    found = cache_directory("kernels")
    if found is None:
        _log.warning("no directory can be written: kernels are compiled anew at each start; see `ift-serve compile`")
    return found


def _is_taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _who_else_writes(folder: Path) -> str | None:
    """Who could put code into a folder beside those who could change the package itself; None where nobody could."""
    try:
        found = folder.stat()
    except OSError:
        return None
    package = _PACKAGE.stat()
    if found.st_uid not in (os.geteuid(), 0, package.st_uid):
        return f"user {found.st_uid}"
    if found.st_mode & stat.S_IWOTH:
        return "everybody"
    is_shared = package.st_mode & stat.S_IWGRP and found.st_gid == package.st_gid
    return f"group {found.st_gid}" if found.st_mode & stat.S_IWGRP and not is_shared else None


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if it can be."""
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


@contextlib.contextmanager
def compiling(name: str) -> Iterator[None]:
    """A context that one process at a time enters for a name; the next then finds what that has kept.

    One that waits for long enters all the same, and compiles too: who waits seems to do nothing.
    """
    directory = kept_code()
    try:
        if directory is None:
            raise OSError
        held = os.open(directory / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # nothing can be kept, so nothing is waited for
        yield
        return
    try:
        waited = 0.0
        while not _is_taken(held) and waited < _LONGEST_WAIT:
            time.sleep(_PAUSE)
            waited += _PAUSE
        yield
    finally:
        os.close(held)
