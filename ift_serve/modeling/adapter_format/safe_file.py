"""Opens the files of an untrusted directory."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ift_serve.modeling.adapter_format.errors import AdapterError, quoted

_LARGEST_JSON = 1 << 20
_MOST_FILES, _DEEPEST = 10_000, 8
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_WEIGHTS = ("adapter_model", "ift_extras")
"""What the names of an adapter's weights begin with. Trainers leave other pickled files beside them: optimisers,
schedulers, random states, shards of DeepSpeed."""
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


class SafeDirectory:
    """An adapter directory, held open. Nothing outside it is opened, and nothing that is not a regular file.

    root: the directory must lie in it, and links may lead anywhere in it, such as to a store that several adapters
    share; None: links may lead nowhere else. Use as a context manager.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        try:
            self.path = path.resolve(strict=True)
            allowed = self.path if root is None else root.resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            raise AdapterError(f"{quoted(path.name)}: there is no such directory") from None
        if not self.path.is_relative_to(allowed):
            raise AdapterError(f"{quoted(path.name)}: leads out of the directory that adapters may be loaded from")
        self._root = allowed
        try:
            self._handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise AdapterError(f"{quoted(path.name)}: cannot be opened: {error.strerror}") from None
        self._seen: dict[str, tuple[int, ...] | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def refuse_pickled(self) -> None:
        """Raise AdapterError for weights that are pickled. Other files, whatever they hold, are never opened."""
        with os.scandir(self._handle) as entries:
            names = sorted(entry.name for entry in islice(entries, _MOST_FILES + 1))
        if len(names) > _MOST_FILES:
            raise AdapterError(f"{quoted(self.path.name)}: over {_MOST_FILES} files; not an adapter directory")
        for name in names:
            if name.lower().endswith(_PICKLED) and name.lower().startswith(_WEIGHTS):
                raise AdapterError(f"{quoted(name)}: pickled files are never read; save the adapter as safetensors")

    def names(self) -> list[str]:
        """Paths of all files in the directory and below it, links among them. Raises AdapterError."""
        found: list[str] = []
        folders = [""]
        while folders:
            folder = folders.pop()
            if folder.count("/") > _DEEPEST:
                raise AdapterError(f"{quoted(folder)}: over {_DEEPEST} directories deep; not an adapter directory")
            with self._folder(folder) as handle, os.scandir(handle) as entries:
                for entry in islice(entries, _MOST_FILES + 1):
                    name = f"{folder}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{name}/")
                    else:
                        found.append(name)
            if len(found) + len(folders) > _MOST_FILES:
                raise AdapterError(f"{quoted(self.path.name)}: over {_MOST_FILES} files; not an adapter directory")
        return found

    @contextlib.contextmanager
    def _folder(self, path: str) -> Iterator[int]:
        """A handle of a directory below this one; no link is followed on the way to it."""
        handle = os.dup(self._handle)
        try:
            for part in path.split("/"):
                if part:
                    inner = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=handle)
                    os.close(handle)
                    handle = inner
            yield handle
        finally:
            os.close(handle)

    def open(self, name: str) -> BufferedReader | None:
        """A regular file of the directory, or below it; None where there is none. Raises AdapterError."""
        folder, _, last = name.rpartition("/")
        try:
            with self._folder(folder) as place:
                handle = os.open(last, _FLAGS, dir_fd=place)
        except FileNotFoundError:
            self._seen[name] = None
            return None
        except OSError as error:
            if error.errno != errno.ELOOP or folder:
                raise AdapterError(f"{quoted(name)}: cannot be opened: {error.strerror}") from None
            handle = self._follow(name)
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            os.close(handle)
            raise AdapterError(f"{name}: not a regular file")
        self._seen[name] = _identity(found)
        return os.fdopen(handle, "rb")

    def _follow(self, name: str) -> int:
        """A handle of the link's target."""
        try:
            target = (self.path / name).resolve(strict=True)
        except (OSError, RuntimeError):
            raise AdapterError(f"{name}: the link leads nowhere") from None
        if not target.is_relative_to(self._root):
            raise AdapterError(f"{name}: the link leads out of the adapter directory; put the file itself there")
        try:
            return os.open(target, _FLAGS)
        except OSError as error:
            raise AdapterError(f"{name}: cannot be opened: {error.strerror}") from None

    def read(self, name: str, largest: int = _LARGEST_JSON) -> bytes | None:
        """The content of a file of at most ``largest`` bytes; None where there is none."""
        file = self.open(name)
        if file is None:
            return None
        with file:
            content = file.read(largest + 1)
        if len(content) > largest:
            raise AdapterError(f"{name}: over {largest} bytes; an adapter's is small")
        return content

    def check_unchanged(self) -> None:
        """Raise AdapterError if a file that was opened has been written or replaced since."""
        for name, before in self._seen.items():
            try:
                now = _identity(os.stat(name, dir_fd=self._handle))
            except OSError:
                now = None
            if now != before:
                raise AdapterError(f"{name}: changed while it was being read; load it again when it is complete")


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def parse_object(name: str, raw: bytes | bytearray) -> dict[str, Any]:
    """A JSON object in which no name comes twice. Raises AdapterError."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name comes twice")
        return found

    try:
        value = json.loads(raw, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{name}: not valid JSON: {quoted(str(error))}") from None
    if not isinstance(value, dict):
        raise AdapterError(f"{name}: holds no JSON object")
    return value
