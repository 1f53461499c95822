"""Values that were computed once and hold as long as their key does, kept between starts."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from ift_kernels.cache_directory import cache_directory

_log = logging.getLogger(__name__)
_MOST = 512


class KeptValues:
    """JSON values by JSON key, each in a file of its own in the cache directory of ``purpose``.

    The key must name everything that the value depends on. Nothing here raises: what cannot be read is not there, and
    what cannot be written is computed again. At most ``_MOST`` values are kept; the oldest go first.
    """

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose

    def get(self, key: Any) -> Any:
        """The value kept under an equal key; None where there is none."""
        directory = cache_directory(self._purpose)
        if directory is None:
            return None
        try:
            kept = json.loads(self._file(directory, key).read_bytes())
        except (OSError, ValueError):
            return None
        # The name is a hash of the key, and the file may have been cut off: only the key itself tells.
        found = isinstance(kept, dict) and kept.get("key") == json.loads(json.dumps(key))
        return kept.get("value") if found else None

    def put(self, key: Any, value: Any) -> None:
        """Keep ``value``, whole or not at all."""
        directory = cache_directory(self._purpose)
        if directory is None:
            return
        try:
            handle, scratch = tempfile.mkstemp(prefix=".", dir=directory)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump({"key": key, "value": value}, file)
                os.replace(scratch, self._file(directory, key))
            except BaseException:
                os.unlink(scratch)
                raise
            _remove_oldest(directory)
        except OSError as error:
            _log.info("%s: nothing is kept: %s", directory, error)

    def _file(self, directory: Path, key: Any) -> Path:
        return directory / f"{sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:40]}.json"


def _remove_oldest(directory: Path) -> None:
    kept = [(entry.stat().st_mtime_ns, entry.path) for entry in os.scandir(directory)]
    for _, path in sorted(kept)[:-_MOST]:
        with contextlib.suppress(OSError):  # another process may have been faster
            os.unlink(path)
