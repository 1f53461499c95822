"""A directory for what is worth keeping between starts: found without configuration, private, and never required.

What is kept may be machine code or decide what is served, so a directory is used only where nobody else can write:
it belongs to this user and is closed to group and others.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_log = logging.getLogger(__name__)
_NAME = "ift-serve"


def cache_directory(purpose: str) -> Path | None:
    """A writable directory of this user's for ``purpose``, a plain name; None where there is none.

    The first that works of ``$IFT_CACHE_DIR/purpose``, ``$XDG_CACHE_HOME/ift-serve/purpose``,
    ``~/.cache/ift-serve/purpose`` and ``ift-serve-<user id>/purpose`` in the directory for temporary files. Never
    raises; a directory that was asked for by name and does not work is named in a warning.
    """
    for root, asked in _roots():
        try:
            return _usable(root, purpose, asked=asked)
        except OSError as error:
            level = logging.WARNING if asked else logging.DEBUG
            _log.log(level, "%s: cannot be used as a cache: %s", error.filename or root, error.strerror or error)
    return None


def _roots() -> Iterator[tuple[Path, bool]]:
    """The places to try, and whether each was asked for by name."""
    if own := os.environ.get("IFT_CACHE_DIR"):
        yield Path(own).absolute(), True
    if (shared := os.environ.get("XDG_CACHE_HOME")) and os.path.isabs(shared):
        yield Path(shared) / _NAME, False
    home = os.path.expanduser("~")
    if os.path.isabs(home):  # a user without a home leaves "~" as it is
        yield Path(home) / ".cache" / _NAME, False
    try:
        yield Path(tempfile.gettempdir()) / f"{_NAME}-{os.geteuid()}", False
    except OSError:  # not even that
        return


def _usable(root: Path, purpose: str, *, asked: bool) -> Path:
    """``root/purpose``, made where it is missing. Raises OSError where it cannot be written or is not private."""
    root.parent.mkdir(parents=True, exist_ok=True)
    root.mkdir(mode=0o700, exist_ok=True)
    if not asked:  # a place that the operator names may be a volume of another owner; what is made in it is ours
        _check_private(root)
    directory = root / purpose
    directory.mkdir(mode=0o700, exist_ok=True)
    _check_private(directory)
    with tempfile.TemporaryFile(dir=directory):
        pass
    return directory


def _check_private(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory, or a link to one", str(directory))
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EACCES, "belongs to another user, or others may write to it", str(directory))
