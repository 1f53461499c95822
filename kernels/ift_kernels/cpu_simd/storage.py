"""Where machine code is kept between starts: beside the sources, or in a private directory if those are read-only."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path

from numba import config

from ift_kernels.cache_directory import cache_directory

_log = logging.getLogger(__name__)
_PACKAGE = Path(__file__).parents[1]


@cache
def can_keep() -> bool:
    """Whether compiled functions can be kept; numba is told where. An own ``NUMBA_CACHE_DIR`` is left alone.

    Where nothing can be written, kernels are compiled anew at each start, which takes a minute and nothing else.
    """
    if config.CACHE_DIR:
        if _is_writable(Path(config.CACHE_DIR)):
            return True
        _log.warning("NUMBA_CACHE_DIR: %s cannot be written", config.CACHE_DIR)
    elif all(_is_writable(folder / "__pycache__") for folder in (Path(__file__).parent, _PACKAGE)):
        return True
    found = cache_directory("kernels")
    if found is None:
        _log.warning("no directory can be written: kernels are compiled anew at each start; set IFT_CACHE_DIR")
        return False
    config.CACHE_DIR = str(found)
    return True


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is there or can be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)
