"""Copies of the adapters that were read, for an engine that is started after this one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

_DISK_SHARE = 2
"""At most this fraction, 1 / n, of the free disk space is filled."""


def _size(root: Path) -> int:
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def keep(path: str, root: str, version: str, place: str, limit: int, names: Sequence[str] = ()) -> None:
    """Copy an adapter's files to ``place/version``, whole or not at all. In the engine, right after they were read.

    names: all files of a signed adapter, without which its signature does not hold; empty: those that are read. What is
    copied is checked when it is loaded again: the version is a hash of it, and a signature is checked anew.
    """
    from ift_serve.modeling.adapter_format.config import IFT_CONFIG, IFT_WEIGHTS, PEFT_CONFIG, PEFT_WEIGHTS
    from ift_serve.modeling.adapter_format.safe_file import SafeDirectory

    target = Path(place) / version
    if target.exists():
        return
    room = min(limit - _size(Path(place)), shutil.disk_usage(place).free // _DISK_SHARE)
    unfinished = Path(tempfile.mkdtemp(prefix=".", dir=place))
    try:
        with SafeDirectory(Path(path), Path(root) if root else None) as files:
            for name in names or (PEFT_CONFIG, PEFT_WEIGHTS, IFT_CONFIG, IFT_WEIGHTS):
                file = files.open(name)
                if file is None:
                    continue
                (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
                with file, (unfinished / name).open("wb") as copy:
                    room -= os.fstat(file.fileno()).st_size
                    if room < 0:
                        raise OSError("there is no room for it")
                    shutil.copyfileobj(file, copy, 1 << 20)
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
