"""Which names transformers' models define, read from its files once and kept.

At each import transformers reads the source of all of its models for the names in them, which takes as long as the rest
of it. What an installed version defines does not change, so a later start takes it from a file.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from ift_serve.modeling.checkpoint.kept_values import KeptValues

_MODULE = "transformers.utils.import_utils"
_READER = "define_import_structure"
Structure = dict[frozenset[str], dict[str, set[str]]]
"""The names that each module of models defines, by the packages that they need."""


class _PatchingFinder:
    """Finds one module, and has what reads the models replaced in it before anything calls that."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _MODULE or (spec := PathFinder.find_spec(name, path, target)) is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def patched(module: ModuleType) -> None:
            execute(module)
            own = getattr(module, _READER, None)
            if own is not None:
                setattr(module, _READER, _kept_or_read(own))

        spec.loader.exec_module = patched  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def kept_import_structure() -> Iterator[None]:
    """Surround the first import of transformers. Where nothing can be kept, it reads its models as ever."""
    finder: Any = _PatchingFinder
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _kept_or_read(read: Any) -> Any:
    values = KeptValues("imports")

    def define_import_structure(module_path: Any, prefix: str | None = None) -> Structure:
        folder = Path(module_path)
        folder = folder.parent if folder.suffix else folder
        key = _key() if folder.name == "models" and folder.parent.name == "transformers" else None
        if key is None:
            found: Structure = read(module_path, prefix)
            return found
        structure = _structure(values.get(key))
        if structure is None:
            structure = read(folder, None)
            values.put(key, _plain(structure))
        if prefix is None:
            return structure
        return {needs: {f"{prefix}.{name}": of for name, of in modules.items()} for needs, modules in structure.items()}

    return define_import_structure


def _key() -> list[Any] | None:
    """Of the installed version; None for one that somebody edits."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError, TypeError):
        installed = importlib.metadata.distribution("transformers")
        record = Path(str(installed.locate_file(f"transformers-{installed.version}.dist-info/RECORD")))
        status = record.stat()
        return [str(record), installed.version, status.st_ino, status.st_size, status.st_mtime_ns]
    return None


def _plain(structure: Structure) -> list[Any]:
    """For JSON."""
    return [[sorted(needs), {name: sorted(of) for name, of in found.items()}] for needs, found in structure.items()]


def _structure(plain: Any) -> Structure | None:
    try:
        found = {frozenset(needs): {str(n): set(of) for n, of in modules.items()} for needs, modules in plain}
    except (ValueError, TypeError, AttributeError):  # not there, or not what was kept
        return None
    return found or None
